"""The key that this service signs with, and the envelopes that it signs.

The private key stays in this process and in one file of the state directory; no
cell is ever given it. The format is DSSE's: what is signed is the payload with
its type, and both lengths, in front, so that nothing signed for one purpose can
be taken for another.
"""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from servicekit.config import StartError
from services.git import files

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_PRIVATE: Final = 0o600


class Signer:
    """Signs with one Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        public = key.public_key()
        self.key_id: Final = sha256(public.public_bytes_raw()).hexdigest()
        """SHA-256 of the public key's 32 bytes."""
        self.public_key: Final = public.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        ).decode()
        """As PEM."""

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """The key in `path`, which is made if there is none. Raises `StartError`."""
        if not path.exists():
            made = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            files.write(path, made, mode=_PRIVATE)
        if path.stat().st_mode & 0o077:
            raise StartError(f"{path}: others may read it; chmod 600, or remove it for a new key")
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError):
            raise StartError(f"{path}: not a private key in PEM without a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise StartError(f"{path}: not an Ed25519 key")
        return cls(key)

    def envelope(self, statement: dict[str, Any]) -> str:
        """The statement in a signed envelope, which is one line of JSON."""
        payload = _json(statement).encode()
        signature = self._key.sign(_authenticated(payload))
        return _json(
            {
                "payload": _base64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": self.key_id, "sig": _base64(signature)}],
            }
        )


def _authenticated(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
