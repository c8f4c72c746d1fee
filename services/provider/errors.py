"""Failures of provider."""

from cove.errors.v1.errors_pb2 import ErrorReason
from servicekit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)


class SandboxUnavailable(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_SANDBOX_UNAVAILABLE


class CapabilityMissing(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_CAPABILITY_MISSING


class DriverUnknown(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_DRIVER_UNKNOWN


class NotProvisioned(NotFound):
    reason = ErrorReason.ERROR_REASON_NOT_PROVISIONED


class EnvironmentStopped(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_ENVIRONMENT_STOPPED


class HandleInvalid(InvalidArgument):
    reason = ErrorReason.ERROR_REASON_HANDLE_INVALID


class ActivationFailed(Unavailable):
    reason = ErrorReason.ERROR_REASON_ACTIVATION_FAILED


class ProxyPortTaken(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_PROXY_PORT_TAKEN


class AgentTooOld(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_AGENT_TOO_OLD


class ProvisionedDifferently(AlreadyExists):
    reason = ErrorReason.ERROR_REASON_PROVISIONED_DIFFERENTLY


class ImageUnavailable(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE


class HandleStale(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_HANDLE_STALE


class BuildFailed(FailedPrecondition):
    reason = ErrorReason.ERROR_REASON_BUILD_FAILED
