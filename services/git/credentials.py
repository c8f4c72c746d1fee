"""What a caller proves itself with, and how it reaches git: by files in the cell's memory."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from servicekit.errors import InvalidArgument

_FILE: Final = "/run/cell/credential"
_KEY: Final = "/run/cell/key"
_HOSTS: Final = "/run/cell/known_hosts"
# A token alone needs some user name; the large hosts take any, or this one.
_ANY_USER: Final = "x-access-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Of one call. Empty: the remote is asked as nobody. Never printed."""

    username: str = ""
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if any(char in text for text in (self.username, self.password) for char in "\0\r\n"):
            raise InvalidArgument("credentials.https", "no line breaks are allowed")

    def digest(self, key: bytes) -> bytes:
        """Tells two credentials apart without keeping them."""
        parts = (self.username, self.password, self.private_key, self.known_hosts)
        return hmac.digest(key, "\0".join(parts).encode(), "sha256")

    def https_files(self) -> Mapping[str, bytes]:
        """Files that the helper of `https_config` reads."""
        if not self.password and not self.username:
            return {}
        text = f"username={self.username or _ANY_USER}\npassword={self.password}\n"
        return {_FILE: text.encode()}

    def https_config(self) -> list[tuple[str, str]]:
        """Configuration that makes git read them, and store them nowhere."""
        if not self.password and not self.username:
            return []
        helper = f'!f() {{ test "$1" = get && cat {_FILE}; }}; f'
        return [("credential.helper", helper)]

    def ssh_files(self, uid: int, gid: int) -> Mapping[str, bytes]:
        """Key, known hosts, and the user that ssh insists on."""
        key = self.private_key
        return {
            _KEY: (key if key.endswith("\n") or not key else f"{key}\n").encode(),
            _HOSTS: self.known_hosts.encode(),
            "/etc/passwd": f"cove:x:{uid}:{gid}::/nonexistent:/bin/false\n".encode(),
        }

    def ssh_command(self, host: str, port: int, address: str) -> str:
        """The ssh that git runs: our address, the caller's key and known hosts, nothing else."""
        alias = host if port == 22 else f"[{host}]:{port}"
        options = {
            "HostName": address,
            "HostKeyAlias": alias,
            "UserKnownHostsFile": _HOSTS,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "IdentityFile": _KEY,
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "15",
            "ForwardAgent": "no",
            "PermitLocalCommand": "no",
            "ProxyCommand": "none",
        }
        pairs = " ".join(f"-o {name}={value}" for name, value in options.items())
        return f"ssh -F /dev/null {pairs}"
