"""A certificate authority of the test's own, made with openssl."""

import shutil
import subprocess
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, so no certificates can be made")
        directory.mkdir()
        self._directory = directory
        self.certificate = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            *("req", "-x509", *_KEY, "-keyout", str(self._key), "-out", str(self.certificate)),
            *("-subj", f"/CN={directory.name}", "-days", "2"),
        )

    def issue(self, host: str, *, days: int = 2) -> Path:
        """A certificate for `host` and its key, in one file."""
        key, wish, made = (self._directory / f"{host}.{end}" for end in ("key", "csr", "crt"))
        name = f"subjectAltName=DNS:{host}"
        _openssl(
            *("req", *_KEY, "-keyout", str(key), "-out", str(wish)),
            *("-subj", f"/CN={host}", "-addext", name),
        )
        _openssl(
            *("x509", "-req", "-in", str(wish), "-out", str(made), "-copy_extensions", "copy"),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-days", str(days)),
        )
        both = self._directory / f"{host}.pem"
        both.write_bytes(key.read_bytes() + made.read_bytes())
        return both


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
