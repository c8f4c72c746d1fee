"""Reads failures as a caller does."""

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from cove.ended import First

T = TypeVar("T")


class Failure:
    """What a failed call tells."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.text = error.details() or ""
        self.trailing = dict(error.trailing_metadata())
        packed = self.trailing.get("grpc-status-details-bin", b"")
        self.status = status_pb2.Status.FromString(packed)

    @property
    def info(self) -> Any:
        return self.detail(error_details_pb2.ErrorInfo)

    @property
    def reason(self) -> str:
        return str(self.info.reason).removeprefix("ERROR_REASON_") if self.info else ""

    def detail(self, kind: Any) -> Any:
        found = kind()
        return next((found for each in self.status.details if each.Unpack(found)), None)


async def failure(call: Any) -> Failure:
    """The failure of a call that must fail, be it one answer or a stream of them."""
    first = First(call) if isinstance(call, grpc.aio.Call) else None
    try:
        if hasattr(call, "__aiter__"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return Failure(first.meant(error) if first else error)
    raise AssertionError("the call did not fail")


async def answered(call: Awaitable[T]) -> T:
    """What a call answers. Raises what it failed with at first."""
    first = First(call) if isinstance(call, grpc.aio.Call) else None
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise (first.meant(error) if first else error) from None
