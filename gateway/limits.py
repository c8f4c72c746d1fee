"""What callers may ask for of the life of a workspace."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from cove.gateway.v1 import gateway_pb2 as pb
from cove.registry.v1.registry_pb2 import EnvironmentSpec
from gateway.records import duration
from gateway.tools import retold
from servicekit.errors import InvalidArgument

LIFE: Final = ("spec.ttl", "spec.idle_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeLimits:
    """`interval` is how often uses are noted: what is idle sooner cannot be told."""

    shortest_idle: timedelta
    interval: timedelta
    undelete_window: timedelta

    def check(self, spec: EnvironmentSpec) -> None:
        """Raises InvalidArgument."""
        idle = spec.idle_timeout.ToTimedelta()
        if spec.HasField("idle_timeout") and idle < self.shortest_idle:
            least = f"{self.shortest_idle.total_seconds():g}s"
            raise InvalidArgument(
                "workspace.spec.idle_timeout",
                f"is below the shortest one, {least}",
                remedy=f"Ask for {least} or more, or leave it out.",
            )

    def take(self, fields: Iterable[str], given: EnvironmentSpec, asked: EnvironmentSpec) -> None:
        """Copy what a mask names of them. Raises InvalidArgument."""
        paths = [field.removeprefix("spec.") for field in fields if field in LIFE]
        FieldMask(paths=paths).MergeMessage(given, asked)
        self.check(asked)

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """Failures in the block name the fields as callers know them."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            fields = {f"environment.{field}": f"workspace.{field}" for field in LIFE}
            raise retold(error, fields=fields) from error

    def told(self) -> pb.LifeCapabilities:
        return pb.LifeCapabilities(
            min_idle_timeout=duration(self.shortest_idle),
            activity_interval=duration(self.interval),
            undelete_window=duration(self.undelete_window),
        )
