"""Whether a server of the suite is well: `healthy.py ADDRESS`, the health check of a container."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def trouble(address: str) -> str:
    """What is wrong with it; empty when nothing is."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name}: {error.details()}"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if name == "SERVING" else f"{address}: {name}"


if __name__ == "__main__":
    sys.exit(trouble(sys.argv[1]) or None)
