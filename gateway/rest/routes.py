"""What the `google.api.http` options of services say, as a table of routes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from cove.options.v1 import options_pb2
from gateway.rest.errors import MethodNotAllowed, RouteNotFound
from gateway.rest.template import Template

_VERBS: Final = ("get", "put", "post", "delete", "patch")
_STREAM: Final = "stream"
_PLACES: Final = ("from_offset", "from_revision")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One HTTP method of one path template, and the RPC behind it."""

    http_method: str
    template: Template
    rpc: MethodDescriptor
    request: type[Message]
    response: type[Message]

    body: str
    """Field of the request that the body is; `*`: the request itself; empty: no body."""

    response_body: str
    """Field of the response that the answer is; empty: the response itself."""

    binding: int
    """Which of the RPC's routes it is, as the option has them; 0 is the first."""

    streamed: "Route | None" = field(default=None, compare=False)
    """The route of the same template with the verb `stream`: the same call, as events."""

    @property
    def path(self) -> str:
        """Of the RPC, as gRPC writes it."""
        return f"/{self.rpc.containing_service.full_name}/{self.rpc.name}"

    @property
    def creates(self) -> bool:
        """Whether it adds to a collection: the caller may choose the id of what is answered."""
        return self.http_method == "POST" and _has(self.rpc.input_type, f"{self.resource}_id")

    @property
    def resource(self) -> str:
        """Field of the response that is the resource; where more is answered, as of a new token its
        secret, it is named as in the request."""
        return self.response_body or self.body

    @property
    def endless(self) -> bool:
        """Whether its streams last as long as they like."""
        return self.rpc.server_streaming and not self.rpc.GetOptions().HasExtension(
            options_pb2.deadline
        )

    def request_id(self) -> str:
        """The field for the Idempotency-Key; empty: it has none."""
        return "request_id" if _has(self.rpc.input_type, "request_id") else ""

    def place(self) -> str:
        """The field for Last-Event-ID; empty: it has none."""
        return next((each for each in _PLACES if _has(self.rpc.input_type, each)), "")

    def etag(self) -> str:
        """The field for If-Match, dotted; empty: it has none."""
        if _has(self.rpc.input_type, "etag"):
            return "etag"
        resource = self.rpc.input_type.fields_by_name.get(self.body)
        if self.http_method == "PATCH" and resource and _has(resource.message_type, "etag"):
            return f"{self.body}.etag"
        return ""


@dataclass(frozen=True, slots=True)
class Match:
    """A route, and what the path says of the request's fields."""

    route: Route
    values: Mapping[str, bytes]


class Routes:
    """In an order in which the first that matches is the right one."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: route.template.rank)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    @classmethod
    def of(cls, services: Iterable[ServiceDescriptor]) -> Self:
        """Raises `ValueError` if an option is of a form that is not known here."""
        plain = [
            _route(rpc, rule, binding)
            for service in services
            for rpc in service.methods
            for binding, rule in enumerate(_rules(rpc))
        ]
        events = {
            (route.http_method, route.template.without_verb): route
            for route in plain
            if route.template.verb == _STREAM and route.rpc.server_streaming
        }
        return cls(
            route
            if route.template.verb
            else replace(
                route, streamed=events.get((route.http_method, route.template.without_verb))
            )
            for route in plain
        )

    def find(self, method: str, path: str) -> Match:
        """The route of a request. Raises `RouteNotFound` and `MethodNotAllowed`."""
        wanted = "GET" if method == "HEAD" else method
        allowed: list[str] = []
        for route in self._routes:
            if route.http_method != wanted and route.http_method in allowed:
                continue
            values = route.template.match(path)
            if values is None:
                continue
            if route.http_method == wanted:
                return Match(route, values)
            allowed.append(route.http_method)
        if allowed:
            raise MethodNotAllowed(path, _with_head(allowed))
        raise RouteNotFound("no such path", path=path)


def _rules(rpc: MethodDescriptor) -> Sequence[http_pb2.HttpRule]:
    options = rpc.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return ()
    rule = options.Extensions[annotations_pb2.http]
    return (rule, *rule.additional_bindings)


def _route(rpc: MethodDescriptor, rule: http_pb2.HttpRule, binding: int) -> Route:
    verb = rule.WhichOneof("pattern")
    if verb not in _VERBS:
        raise ValueError(f"{rpc.full_name}: no HTTP method that is known here")
    return Route(
        http_method=verb.upper(),
        template=Template(getattr(rule, verb)),
        rpc=rpc,
        request=message_factory.GetMessageClass(rpc.input_type),
        response=message_factory.GetMessageClass(rpc.output_type),
        body=rule.body,
        response_body=rule.response_body,
        binding=binding,
    )


def _has(message: Descriptor | None, name: str) -> bool:
    return message is not None and name in message.fields_by_name


def _with_head(methods: list[str]) -> list[str]:
    return sorted([*methods, "HEAD"] if "GET" in methods else methods)
