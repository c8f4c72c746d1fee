"""What lists and watches of environments are filtered and ordered by: docs/filters.md."""

from typing import Final

from cove.registry.v1.registry_pb2 import Environment
from servicekit.filters.fields import Fields

FIELDS: Final = Fields(
    Environment.DESCRIPTOR,
    (
        *("name", "uid", "creator", "labels", "state", "operation", "operation_holder"),
        *("create_time", "update_time", "delete_time", "purge_time", "lease_expire_time"),
        *("driver", "node", "head_commit", "warnings", "failure", "failure.reason", "progress"),
        *("copy_node", "copy_commit"),
        *("progress.phase", "keep_on_failure", "revision", "handle_generation"),
        *("spec.repository", "spec.revision", "spec.branch", "spec.driver", "spec.depth"),
        *("spec.filter", "spec.network", "spec.limits.memory_bytes", "spec.limits.processes"),
        *("spec.limits.milli_cpus", "spec.limits.disk_bytes", "spec.limits.open_files"),
        *("worktree.branch", "worktree.base_commit", "worktree.resolved_time"),
        *("source", "source.name", "source.uid", "source.snapshot_id"),
    ),
    collection="environments/",
)

MAX_BYTES: Final = 16 << 10
"""Of a filter: the gateway, which takes 4 KiB of a caller, writes it in more words."""

ORDERS: Final = ("name", "create_time", "update_time", "state")
