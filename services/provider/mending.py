"""Makes the record of an environment anew, when no provider runs."""

from datetime import UTC, datetime

from cove.mount.v1.mount_pb2 import Mount
from cove.provider.v1 import provider_pb2 as pb
from services.provider.config import Config
from services.provider.convert import spec_of, worktree_of
from services.provider.drivers.records import Record, Records, completed


def provision(config: Config, uid: str, tenant: str, spec: pb.Spec, mount: Mount) -> None:
    """As ProvisionEnvironment would, but for what only a launcher can tell; that is found out when
    it is activated. Raises InvalidArgument, OSError."""
    records = Records(config.state / "provider" / "environments")
    records.write(
        Record(
            uid=uid,
            tenant=tenant,
            spec=completed(spec_of(spec), "local", config.processes),
            worktree=worktree_of(mount),
            provision_time=datetime.now(UTC),
        )
    )
