"""Archives of our own, unpacked by every Python that Cove runs on."""

import tarfile
from pathlib import Path
from typing import Any


def unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """All of it, as it is in the archive. Pythons before 3.11.4 have no filters, and need none."""
    filtered: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
    archive.extractall(folder, **filtered)
