"""Which database the registry of a state directory has."""

from collections.abc import Mapping

from cove_server.admin.errors import Refused
from cove_server.places import Places
from services.registry.config import Config

_REMEDY = (
    "pg_dump --format=custom backs it up while all runs, pg_restore puts it back; the state "
    "directory is copied with the suite stopped, see docs/operations.md."
)


def registry_of(places: Places, env: Mapping[str, str]) -> Config:
    """Raises `Refused` for one that is no file, ConfigError for wrong variables."""
    if "://" in env.get("COVE_REGISTRY__DATABASE", ""):
        raise Refused("the registry is in PostgreSQL, which has tools of its own", _REMEDY)
    own = {**env, "COVE_STATE": str(places.state), "COVE_RUNTIME": str(places.runtime)}
    return Config.from_env(own)
