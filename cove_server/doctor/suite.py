"""The suite that runs on the state directory, if one does."""

from cove import health
from cove.endpoint import FILE, find
from cove.status import Unavailable
from cove_server.doctor.finding import Finding, fail, ok, warn
from cove_server.places import Places

_CHECK = "suite"


async def suite(places: Places) -> tuple[Finding, bool]:
    """How its services are, and whether there is one."""
    try:
        endpoint = find({}, state=places.state)
    except Unavailable:
        return ok(_CHECK, "not running: cove up starts it"), False
    states = await health.check(endpoint)
    ill = [f"{name} {state}" for name, state in states.items() if state != health.SERVING]
    if not ill:
        return ok(_CHECK, f"{len(states)} services serve, gRPC at {endpoint.address}"), True
    if all(state == health.UNREACHABLE for state in states.values()):
        left = f"{places.state / FILE} was left by one that was killed"
        return warn(_CHECK, left, f"cove up --state {places.state}"), False
    return fail(
        _CHECK, "; ".join(ill), "Their log, on the standard error of cove up, says why."
    ), True
