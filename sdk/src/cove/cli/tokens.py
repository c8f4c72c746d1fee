"""`cove token share`."""

import argparse

from google.protobuf.json_format import MessageToDict

from cove.cli.console import Console, when
from cove.client import Client
from cove.options.v1.options_pb2 import Role
from cove.registry.v1.access_pb2 import Token
from cove.tokens import NewToken


async def token(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if options.action == "ls":
        return await _list(cove, options, console)
    if options.action == "revoke":
        return await _revoke(cove, options, console)
    if options.ids:
        console.trouble("the id of a new token is an option", "Give it with --id.")
        return 2
    made = await cove.tokens.create(
        options.role, ttl=options.ttl, description=options.description, id=options.id
    )
    return _told(made, console)


async def share(cove: Client, options: argparse.Namespace, console: Console) -> int:
    made = await cove.tokens.create(
        "writer" if options.write else "reader",
        workspace=options.workspace,
        ttl=options.ttl,
        description=options.description,
    )
    return _told(made, console)


def _told(made: NewToken, console: Console) -> int:
    if console.as_json:
        console.json({"token": MessageToDict(made.token), "secret": made.secret})
        return 0
    console.line(made.secret)
    name = made.token.name.removeprefix("tokens/")
    what = made.token.workspace or f"the tenant {made.token.tenant}"
    console.note(f"{_role(made.token)} of {what} until {when(made.token.expire_time)}.")
    console.note(f"It is not shown again; `cove token revoke {name}` ends it.")
    return 0


async def _list(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if options.ids:
        console.trouble("`cove token ls` takes no id", "It lists them all.")
        return 2
    found = [each async for each in cove.tokens.list(ended=options.all)]
    if console.as_json:
        console.json({"tokens": [MessageToDict(each) for each in found]})
        return 0
    rows = [
        (
            each.name.removeprefix("tokens/"),
            _role(each),
            each.workspace.removeprefix("workspaces/") or "-",
            "revoked" if each.HasField("revoke_time") else when(each.expire_time),
            each.creator,
            each.description or "-",
        )
        for each in found
    ]
    console.table(("ID", "ROLE", "WORKSPACE", "UNTIL", "MADE BY", "DESCRIPTION"), rows)
    return 0


async def _revoke(cove: Client, options: argparse.Namespace, console: Console) -> int:
    if not options.ids:
        console.trouble("no token is named", "`cove token ls` lists them.")
        return 2
    for each in options.ids:
        ended = await cove.tokens.revoke(each)
        if console.as_json:
            console.json(ended)
    return 0


def _role(token: Token) -> str:
    return Role.Name(token.role).removeprefix("ROLE_").lower()
