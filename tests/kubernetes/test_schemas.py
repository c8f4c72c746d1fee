"""Every object is what the API of Kubernetes says, by its published schemas, no field unknown."""

import copy
import json
from typing import Any, Final

import kubernetes_validate
import pytest

from tests.kubernetes.manifests import BASE, WAYS, Object, of_kind, rendered

VERSIONS: Final = ("1.30", "1.37")
"""The oldest that docs/kubernetes.md promises, and the newest that there is."""


def refused(thing: Object, version: str) -> str:
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = "/".join(map(str, error.path))
        return f"{thing['kind']} {thing['metadata']['name']}: {where}: {error.message}"
    return ""


@pytest.mark.parametrize("version", VERSIONS)
def test_all_are_as_the_schemas_say(version: str) -> None:
    things = {json.dumps(each): each for way in WAYS for each in rendered(way)}
    assert [*filter(None, (refused(each, version) for each in things.values()))] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_in_them_is_refused(version: str) -> None:
    (daemons,) = of_kind(BASE, "DaemonSet")

    def changed(*path: Any, to: Any) -> str:
        thing: Any = copy.deepcopy(daemons)
        at = thing
        for each in path[:-1]:
            at = at[each]
        at[path[-1]] = to
        return refused(thing, version)

    container = ("spec", "template", "spec", "containers", 0)
    assert not changed(*container, "image", to="another")
    assert "readynessProbe" in changed(*container, "readynessProbe", to={})
    assert "add" in changed(*container, "securityContext", "add", to=["SYS_ADMIN"])
    assert "is not of type" in changed(*container, "ports", 0, "containerPort", to="7501")
    assert "required" in changed("spec", to={"template": daemons["spec"]["template"]})


def test_only_apis_that_are_stable() -> None:
    stable = {"v1", "apps/v1", "autoscaling/v2", "networking.k8s.io/v1", "policy/v1"}
    for way in WAYS:
        assert {each["apiVersion"] for each in rendered(way)} <= stable


def test_each_is_there_once() -> None:
    for way in WAYS:
        names = [
            (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
            for each in rendered(way)
        ]
        assert len(names) == len({*names})
