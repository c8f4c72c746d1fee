"""The four tools: each does one job, and never calls another."""

import servicekit  # noqa: F401 - sets what gRPC reads at its first import.
