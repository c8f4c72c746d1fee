"""Which database the registry of a state directory has."""

from collections.abc import Mapping

from cove_server.admin.errors import Refused
from cove_server.places import Places
from services.registry.config import Config

_REMEDY = (
    "Stop the services, then `pg_dump --format=custom` the database and `tar --numeric-owner` the "
    "state directory: docs/operations.md."
)


def registry_of(places: Places, env: Mapping[str, str]) -> Config:
    """Raises `Refused` for one that is no file, ConfigError for wrong variables."""
    own = {**env, "COVE_STATE": str(places.state), "COVE_RUNTIME": str(places.runtime)}
    found = Config.from_env(own)
    if found.database_url:
        raise Refused("the registry is in PostgreSQL, which has tools of its own", _REMEDY)
    return found
