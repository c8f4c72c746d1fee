"""What callers see: composes the four tools, decides nothing, keeps nothing."""

import servicekit  # noqa: F401 - sets what gRPC reads at its first import.
