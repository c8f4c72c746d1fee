"""How the gateway reaches its tools: unix sockets, TCP with the service token, TLS."""

from contextlib import AbstractAsyncContextManager

from gateway.config import Config
from servicekit.channel import Peer, connected
from servicekit.secrets import read_secret
from servicekit.secured import Secure
from servicekit.tls import Certificates, Files


class Reach:
    def __init__(self, config: Config) -> None:
        """Raises `ConfigError` if a file cannot be used."""
        self._config = config
        self._token = read_secret(config.service_token_file) if config.service_token_file else ""
        self._certificates = _certificates(config)

    def to(
        self, tool: str, node: str = "", *, narrow: bool = False, keeps_entries: bool = False
    ) -> AbstractAsyncContextManager[Peer]:
        """The registry, git, the provider or the executor, of a node where there are several.

        See `connected`.
        """
        return connected(
            self._config.at(tool, node),
            service=tool,
            token=self._token,
            secure=self._secure(tool, node),
            narrow=narrow,
            keeps_entries=keeps_entries,
        )

    def _secure(self, tool: str, node: str) -> Secure | None:
        if self._certificates is None:
            return None
        return Secure(
            certificates=self._certificates,
            identity=self._config.id_of(tool, node),
            folder=self._config.runtime,
        )


def _certificates(config: Config) -> Certificates | None:
    certificate = config.tools_certificate_file or config.certificate_file
    key = config.tools_key_file or config.key_file
    if not config.tools_ca_file or not certificate or not key:
        return None
    return Certificates(Files(certificate=certificate, key=key, authorities=config.tools_ca_file))
