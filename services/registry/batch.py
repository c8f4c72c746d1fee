"""Many writes in one commit: each as its own RPC would make it, with a result of its own."""

from collections.abc import Sequence
from functools import partial

from cove.registry.v1 import registry_pb2 as pb
from servicekit.errors import InvalidArgument, ServiceError
from servicekit.status import to_status
from services.registry.rules import Rules
from services.registry.store import Key, Write


def writes(
    request: pb.BatchUpdateEnvironmentsRequest, rules: Rules, tenant: str
) -> Sequence[Write]:
    """Raises `InvalidArgument` for a request id of a single write: the batch has the one."""
    return [_write(each, number, rules, tenant) for number, each in enumerate(request.writes)]


def _write(
    write: pb.BatchUpdateEnvironmentsRequest.Write, number: int, rules: Rules, tenant: str
) -> Write:
    kind = write.WhichOneof("write")
    field = f"writes[{number}].{kind}"
    match kind:
        case "update":
            name, change = write.update.environment.name, partial(rules.update, write.update)
            if not write.update.update_mask.paths:
                raise InvalidArgument(f"{field}.update_mask", "names no field")
        case "update_status":
            name = write.update_status.name
            change = partial(rules.update_status, write.update_status)
        case _:
            name, change = write.release.name, partial(rules.release, write.release)
    if kind != "release" and getattr(write, str(kind)).request_id:
        raise InvalidArgument(f"{field}.request_id", "set the one of the batch instead")
    return Write(Key(tenant, name), change)


def answer(results: Sequence[bytes | ServiceError]) -> bytes:
    """What became of each. The answers of all three RPCs have the environment alike."""
    told = pb.BatchUpdateEnvironmentsResponse()
    for result in results:
        if isinstance(result, ServiceError):
            told.results.add(error=to_status(result))
        else:
            environment = pb.UpdateEnvironmentResponse.FromString(result).environment
            told.results.add(etag=environment.etag, revision=environment.revision)
    return told.SerializeToString()
