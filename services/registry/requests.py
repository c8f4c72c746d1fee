"""What makes two requests the same one."""

import hashlib
from typing import Any

from cove.registry.v1 import registry_pb2 as pb


def digest(request: Any) -> bytes:
    """Of the content that makes two requests the same one.

    Who takes a lease, and for how long, is no part of it: a retry that reaches another
    gateway is still the same request. Its `operation_holder` tells that it was one.
    """
    content: Any = request
    if isinstance(request, pb.RegisterEnvironmentRequest | pb.ClaimOperationRequest):
        content = request.__class__()
        content.CopyFrom(request)
        content.ClearField("holder")
        content.ClearField("lease")
    elif isinstance(request, pb.UpdateEnvironmentRequest):
        content = request.__class__()
        content.CopyFrom(request)
        content.ClearField("fencing_token")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
