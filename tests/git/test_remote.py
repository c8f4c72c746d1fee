"""Which remotes may be talked to."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from services.git.errors import (
    BranchInvalid,
    RemoteForbidden,
    RemoteUnavailable,
    RepositoryNotFound,
)
from services.git.names import check_branch
from services.git.remote import Remote, Rules, Scheme

RULES = Rules(local_roots=[Path("/")])


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("--upload-pack=touch x", "characters"),
        ("--upload-pack=x", "form"),
        ("-oProxyCommand=x", "form"),
        ("ext::sh -c x", "characters"),
        ("ext::x", "form"),
        ("fd::3,4", "form"),
        ("git://example.org/x", "scheme"),
        ("ftp://example.org/x", "scheme"),
        ("http://example.org/x", "scheme"),
        ("relative/path", "form"),
        ("../up", "form"),
        ("https://example.org/x\n", "characters"),
        ("https://example.org/x\0", "characters"),
        ("https://ada:secret@example.org/x", "credentials"),
        ("https://ada@example.org/x", "credentials"),
        ("https://ada:secret@example.org/x?y=1 z", "credentials"),
        ("ftp://ada:secret@example.org/x", "credentials"),
        ("ssh://git:secret@example.org/x", "credentials"),
        ("ssh://git%3Asecret@example.org/x", "credentials"),
        ("git:secret@example.org:x", "credentials"),
        ("file://ada:secret@localhost/srv/x", "credentials"),
        ("https://example.org/x?y=1", "form"),
        ("https://example.org:99999/x", "form"),
        ("https://-example.org/x", "host"),
        ("https://exa_mple.org/x", "host"),
        ("https://example.org\\@evil.org/x", "credentials"),
        ("https://example.org\\evil.org/x", "host"),
        ("https://2130706433/x", "host"),
        ("https://127.1/x", "host"),
        ("https://0x7f.0.0.1/x", "host"),
        ("https://127.0.0.1./x", "host"),
        ("https://example.0x7f/x", "host"),
        ("https://[fe80::1%251]/x", "host"),
        ("ssh://[fe80::1%$(x)]/x", "host"),
        ("git@127.1:x", "host"),
        ("https://example.org/", "path"),
        ("ssh://-oProxyCommand=x/y", "host"),
        ("ssh://-l@example.org/y", "user"),
        ("ssh://example.org/-x", "path"),
        ("-x@example.org:y", "form"),
        ("git@example.org:~root/x", "path"),
        ("file://example.org/srv/x", "form"),
        ("file:///srv/../etc", "path"),
    ],
)
def test_a_url_that_is_not_allowed_is_refused_by_a_rule(url: str, rule: str) -> None:
    with pytest.raises(RemoteForbidden) as caught:
        RULES.parse(url)
    assert caught.value.metadata["rule"] == rule
    assert "secret" not in f"{caught.value} {caught.value.metadata}"


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://Example.org/a/b.git", "https://example.org/a/b.git"),
        ("https://example.org:443/a", "https://example.org/a"),
        ("https://example.org:8443/a", "https://example.org:8443/a"),
        ("ssh://git@example.org/a.git", "ssh://git@example.org/a.git"),
        ("git@example.org:a/b.git", "ssh://git@example.org/a/b.git"),
        ("git@example.org:a@b:c/d", "ssh://git@example.org/a@b:c/d"),
        ("https://[2001:db8::1]/a", "https://[2001:db8::1]/a"),
        ("https://192.0.2.1:8443/a", "https://192.0.2.1:8443/a"),
        ("https://1.example.org/a", "https://1.example.org/a"),
        ("/", "file:///"),
        ("file:///", "file:///"),
    ],
)
def test_a_url_is_written_in_one_way(url: str, same: str) -> None:
    assert RULES.parse(url).url == same


def test_paths_are_allowed_only_below_the_roots_and_never_in_the_state(tmp_path: Path) -> None:
    (tmp_path / "in" / "state" / "x").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    rules = Rules(local_roots=[tmp_path / "in"], closed=tmp_path / "in" / "state")
    assert rules.parse(str(tmp_path / "in")).scheme is Scheme.FILE
    for name in ("out", "in/link", "in/state", "in/state/x", "in/state/absent"):
        with pytest.raises(RemoteForbidden):
            rules.parse(str(tmp_path / name))
    with pytest.raises(RepositoryNotFound):
        rules.parse(str(tmp_path / "in" / "absent"))
    with pytest.raises(RemoteForbidden):
        Rules().parse(str(tmp_path / "in"))


def answering(*addresses: str) -> object:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


REMOTE = Remote(scheme=Scheme.HTTPS, host="example.org", port=443, path="/x")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "fec0::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ],
)
async def test_an_address_that_is_not_public_is_refused_unless_listed(address: str) -> None:
    resolve = answering("8.8.8.8", address)
    with pytest.raises(RemoteForbidden) as caught:
        await RULES.address(REMOTE, resolve)  # type: ignore[arg-type]
    assert caught.value.metadata["rule"] == "address"
    listed = Rules(allowed_hosts=frozenset(["example.org:443"]))
    assert await listed.address(REMOTE, answering(address)) == address  # type: ignore[arg-type]


async def test_the_first_public_address_is_the_one_to_use() -> None:
    resolve = answering("8.8.8.8", "2606:4700::1111")
    assert await RULES.address(REMOTE, resolve) == "8.8.8.8"  # type: ignore[arg-type]


async def test_a_host_without_address_is_unavailable() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError

    with pytest.raises(RemoteUnavailable):
        await RULES.address(REMOTE, resolve)


GOOD = ["main", "cove/demo", "a.b", "é", "a-b_c", "feature/x-1"]
BAD = ["", "-x", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "/a", "a/", "a//b"]
BAD += [
    ".a",
    "a/.b",
    "a.",
    "a.lock",
    "a.lock/b",
    "@",
    "HEAD",
    "a@{b",
    "a\x00",
    "a\n",
    "refs/heads/a",
]


@pytest.mark.parametrize("name", GOOD)
def test_a_branch_name_is_taken(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize("name", [*BAD, "x" * 241])
def test_a_branch_name_that_git_refuses_is_refused(name: str) -> None:
    with pytest.raises(BranchInvalid):
        check_branch(name)
