"""Which release this is."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version of this suite; `unknown` where no distribution is installed."""
    try:
        return version("cove-server")
    except PackageNotFoundError:
        return "unknown"
