"""A failure as a caller sees all of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from google.rpc import error_details_pb2

from servicekit.status import told


@dataclass
class Answer:
    """What was told of a failure."""

    code: str = ""
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    """Of the request, that are wrong."""
    remedy: str = ""

    def take(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        status = told(error)
        assert status, error
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        words = error_details_pb2.LocalizedMessage()
        for detail in status.details:
            if detail.Unpack(info):
                self.reason = info.reason.removeprefix("ERROR_REASON_")
                self.metadata = dict(info.metadata)
            elif detail.Unpack(bad):
                self.fields = [each.field for each in bad.field_violations]
            elif detail.Unpack(words):
                self.remedy = words.message


@asynccontextmanager
async def failing() -> AsyncIterator[Answer]:
    """The block's call fails; all that is told of it, filled in when the block has ended."""
    answer = Answer()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield answer
    answer.take(caught.value)
