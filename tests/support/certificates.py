"""Authorities and certificates, made in the test."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Paths:
    """Where one certificate and its key are."""

    certificate: Path
    key: Path

    def replace(self, other: "Paths") -> None:
        """Put another certificate in place, as who renews does: one file after the other."""
        other.certificate.replace(self.certificate)
        other.key.replace(self.key)


class Authority:
    """Its own certificate is at `path`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.pem"
        self._folder = folder
        self._name = name
        self._made = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(_named(name), self._key, (), authority=True)
        self.path.write_bytes(_pem(self._certificate))

    def certify(self, *uris: str, hosts: tuple[str, ...] = (), expired: bool = False) -> Paths:
        """A certificate of these URIs and names or addresses of hosts."""
        self._made += 1
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.UniformResourceIdentifier, uris), *map(_host, hosts)]
        made = self._sign(_named("somebody"), key, tuple(names), expired=expired)
        stem = self._folder / f"{self._name}{self._made}"
        paths = Paths(stem.with_suffix(".crt"), stem.with_suffix(".key"))
        paths.certificate.write_bytes(_pem(made))
        paths.key.touch(mode=0o600)
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[x509.GeneralName, ...],
        *,
        authority: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC) - (2 * _DAY if expired else 0 * _DAY)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
