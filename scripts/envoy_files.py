"""Make what deploy/envoy/envoy.yaml reads, to try it on one machine.

    python -m scripts.envoy_files deploy/envoy/made [NAME ...]

Certificates for a year, of authorities of their own: in `tls` those of Envoy, one that callers see,
for localhost and the names of hosts that are given, and one that gateways see; in `gateway` and
`node` those of such. Each folder has what one container needs; the keys of the authorities, by
which anybody could be made, stay in `authorities`. All keys are for nobody but this user.
`public.pem` is for callers. Where there is a mesh, or an authority already, take its certificates
instead: the names of the files are the same. What is there is kept.

The key of an issuer of JWTs is one that nobody has: no JWT is let in until there are others.
"""

import datetime
import ipaddress
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.envoy_descriptors import descriptor_set

_YEAR: Final = datetime.timedelta(days=365)
_LOCAL: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Authority:
    """Its certificate is in `NAME.pem`, its key in `NAME.key`."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, folder: Path, name: str) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(name, key, name, key, [], authority=True)
        _write(folder / name, ".pem", key, certificate)
        return cls(folder, name, key, certificate)

    def certify(self, path: Path, *, uri: str = "", hosts: tuple[str, ...] = ()) -> None:
        """In `path.crt` and `path.key`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.UniformResourceIdentifier(uri)] if uri else []
        found = _signed(path.name, key, self.name, self.key, [*names, *map(_host, hosts)])
        _write(path, ".crt", key, found)

    def show(self, folder: Path) -> None:
        """Put its certificate there."""
        shutil.copy(self.folder / f"{self.name}.pem", folder)


def make(folder: Path, names: tuple[str, ...] = ()) -> None:
    """All that is not there."""
    if not (folder / "public.pem").exists():  # The last of them.
        _certificates(folder, names)
    if not (folder / "jwks.json").exists():
        nobody = ec.generate_private_key(ec.SECP256R1()).public_key()
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(nobody))
        (folder / "jwks.json").write_text(json.dumps({"keys": [key | {"kid": "nobody"}]}))
    (folder / "cove.binpb").write_bytes(descriptor_set().SerializeToString(deterministic=True))


def _certificates(folder: Path, names: tuple[str, ...]) -> None:
    held, envoy, gateway, node = (
        folder / each for each in ("authorities", "tls", "gateway", "node")
    )
    for each in (held, envoy, gateway, node):
        each.mkdir(parents=True, exist_ok=True)
    public, callers, services = (
        Authority.new(held, each) for each in ("public", "callers", "services")
    )
    public.certify(envoy / "front", hosts=(*_LOCAL, *names))
    services.certify(envoy / "edge", uri="spiffe://cove/edge")
    services.certify(gateway / "gateway", uri="spiffe://cove/gateway", hosts=("gateway", *_LOCAL))
    services.certify(node / "node", uri="spiffe://cove/node")
    callers.show(envoy)
    for each in (envoy, gateway, node):
        services.show(each)
    public.show(folder)


def _signed(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    *,
    authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _YEAR)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(by, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cove {name}")])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(
    path: Path, ending: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    path.with_suffix(ending).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = path.with_suffix(".key")
    private.touch(mode=0o600)
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def main(arguments: list[str]) -> int:
    if not arguments:
        print("usage: python -m scripts.envoy_files FOLDER [NAME ...]", file=sys.stderr)
        return 2
    make(Path(arguments[0]), tuple(arguments[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
