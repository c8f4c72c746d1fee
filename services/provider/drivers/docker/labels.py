"""By which we know what is ours at an engine that serves others, too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.handle import valid_uid

_SCHEMA: Final = "1"
_UID, _TENANT, _NODE, _STATE, _VERSION = (
    f"dev.cove.{name}" for name in ("uid", "tenant", "node", "state", "schema")
)
_SETUP: Final = "dev.cove.setup"
_PREFIX: Final = "cove-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """For whom a container is."""

    tenant: str
    node: str


class Labels:
    """Those of one state directory, by its identity."""

    def __init__(self, state: str) -> None:
        self._state = state

    @property
    def ours(self) -> str:
        """What everything of this state directory has."""
        return f"{_STATE}={self._state}"

    def name(self, uid: str) -> str:
        """Of the container and of the volume of an environment."""
        return f"{_PREFIX}{uid}"

    def uid_of_name(self, name: str) -> str:
        """Empty where it is no name of ours."""
        uid = name.removeprefix(_PREFIX)
        return uid if name.startswith(_PREFIX) and valid_uid(uid) else ""

    def of(self, uid: str, owner: Owner) -> dict[str, str]:
        return {
            _UID: uid,
            _TENANT: owner.tenant,
            _NODE: owner.node,
            _STATE: self._state,
            _VERSION: _SCHEMA,
        }

    def uid(self, labels: Mapping[str, str]) -> str:
        """The environment that labels are of; empty where they are not ours."""
        uid = labels.get(_UID, "")
        ours = (labels.get(_STATE), labels.get(_VERSION)) == (self._state, _SCHEMA)
        return uid if ours and valid_uid(uid) else ""

    @staticmethod
    def of_any_setup(labels: Mapping[str, str]) -> bool:
        """Whether an image came of a setup, of whatever state directory."""
        return bool(labels.get(_SETUP))

    def of_setup(self, key: str) -> dict[str, str]:
        """Of an image after a setup, and of the container that becomes one. What the image that it
        begins with says is overruled: it would be taken for an environment."""
        return {_SETUP: key, _UID: "", _STATE: self._state, _VERSION: _SCHEMA}

    def setup(self, labels: Mapping[str, str]) -> str:
        """The setup that labels are of; empty where they are not ours, or of an environment, which
        has those of its image, too."""
        ours = (labels.get(_STATE), labels.get(_VERSION)) == (self._state, _SCHEMA)
        return labels.get(_SETUP, "") if ours and not labels.get(_UID) else ""
