"""Templates, and the table that the options of the gateway make."""

import pytest

from cove.gateway.v1 import gateway_pb2
from gateway.rest.errors import MethodNotAllowed, RouteNotFound
from gateway.rest.routes import Routes
from gateway.rest.template import Template


@pytest.fixture
def routes() -> Routes:
    return Routes.of(gateway_pb2.DESCRIPTOR.services_by_name.values())


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("/a", "/a", {}),
        ("/a", "/a/", None),
        ("/{name=a/*}", "/a/b", {"name": b"a/b"}),
        ("/{name=a/*}", "/a/b%20c", {"name": b"a/b c"}),
        ("/{name=a/*}", "/a/b:c", None),
        ("/{name=a/*}", "/a/", None),
        ("/{name=a/*}", "/a/b%2fc", None),
        ("/{name=a/*}", "/a/b%", None),
        ("/{name=a/*}", "/x/b", None),
        ("/{name=a/*/b/*}:go", "/a/1/b/2:go", {"name": b"a/1/b/2"}),
        ("/{name=a/*/b/*}:go", "/a/1/b/2", None),
        ("/{id}/x", "/1/x", {"id": b"1"}),
        ("/{outer.name=a/*}", "/a/b", {"outer.name": b"a/b"}),
        ("/{name=a/*}/f/{path=**}", "/a/b/f", {"name": b"a/b", "path": b""}),
        ("/{name=a/*}/f/{path=**}", "/a/b/f/", {"name": b"a/b", "path": b""}),
        ("/{name=a/*}/f/{path=**}", "/a/b/f/c/d:e%ff", {"name": b"a/b", "path": b"c/d:e\xff"}),
        ("/{name=a/*}/f/{path=**}", "/a/b/fx", None),
    ],
)
def test_a_template_matches_what_it_says(
    template: str, path: str, values: dict[str, bytes] | None
) -> None:
    assert Template(template).match(path) == values


@pytest.mark.parametrize("text", ["", "a", "/a/*", "/{a", "/{a=b/{c}}", "/a/**/b"])
def test_a_template_of_a_form_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        Template(text)


def test_every_rpc_of_the_gateway_has_a_route_and_none_hides_another(routes: Routes) -> None:
    methods = [
        method.full_name
        for service in gateway_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name != "ForwardPort"  # Bytes both ways: not over HTTP.
    ]
    assert {route.rpc.full_name for route in routes} == set(methods)
    for route in routes:
        path = route.template.text.replace("=**", "=x/y")
        for pattern in ("workspaces/*/executions/*", "workspaces/*"):
            path = path.replace(f"={pattern}", f"={pattern.replace('*', 'x')}")
        for field in route.template.fields:
            path = path.replace(f"{{{field}=", "").replace("}", "")
        assert routes.find(route.http_method, path).route is route


def test_what_is_created_is_told_from_what_is_only_posted(routes: Routes) -> None:
    creating = {route.rpc.name for route in routes if route.creates}
    assert creating == {
        *("CreateToken", "CreateWorkspace", "ForkWorkspace"),
        *("SnapshotWorkspace", "StartExecution"),
    }


def test_unknown_paths_and_methods_are_told_apart(routes: Routes) -> None:
    with pytest.raises(RouteNotFound):
        routes.find("GET", "/nothing")
    with pytest.raises(MethodNotAllowed) as caught:
        routes.find("PATCH", "/workspaces")
    assert caught.value.allowed == "GET, HEAD, POST"
