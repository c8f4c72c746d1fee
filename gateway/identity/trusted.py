"""Whom the gateway trusts to say who a caller is, as it is configured."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.config import Config
from gateway.identity.certificates import CertificateAuthenticator, Handed
from gateway.identity.jwt import Claims, JwtAuthenticator
from gateway.identity.keys import FetchedKeys, FileKeys, is_safe
from gateway.identity.names import RIGHTS, ROLES, TENANT
from gateway.identity.several import Applies
from servicekit.config import ConfigError
from servicekit.identity import Authenticator


@asynccontextmanager
async def ways(
    config: Config, handed: Handed
) -> AsyncIterator[Sequence[tuple[Applies, Authenticator]]]:
    """Those by which others than Cove itself say who a caller is. Raises `ConfigError`."""
    found: list[tuple[Applies, Authenticator]] = []
    if config.certificates_file:
        by_certificate = CertificateAuthenticator(config.certificates_file, handed)
        found.append((by_certificate.applies, by_certificate))
    async with _trusted(config) as by_jwt:
        if by_jwt:
            found.append((by_jwt.applies, by_jwt))
        yield found


@asynccontextmanager
async def _trusted(config: Config) -> AsyncIterator[JwtAuthenticator | None]:
    """None where there is none. Raises `ConfigError`. The issuer need not be up."""
    if not config.jwt_issuer:
        yield None
        return
    claims = _claims(config)
    if config.jwt_keys_file:
        yield JwtAuthenticator(claims, FileKeys(config.jwt_keys_file))
        return
    if not is_safe(config.jwt_issuer):
        name = config.name_of("jwt_issuer")
        raise ConfigError(f"{name}: not https; name its keys with JWT_KEYS_FILE")
    keys = FetchedKeys(config.jwt_issuer, _context(config))
    async with keys.running():
        yield JwtAuthenticator(claims, keys)


def _claims(config: Config) -> Claims:
    if not TENANT.fullmatch(config.jwt_tenant):
        raise ConfigError(f"{config.name_of('jwt_tenant')}: not the name of a tenant")
    roles = dict(each.rpartition("=")[::2] for each in config.jwt_roles)
    for value, role in roles.items():
        if not value or role not in RIGHTS:
            words = "|".join(RIGHTS)
            raise ConfigError(f"{config.name_of('jwt_roles')}: not value={words}: {role}")
    return Claims(
        issuer=config.jwt_issuer,
        audience=config.jwt_audience,
        principal=config.jwt_principal_claim,
        tenant=config.jwt_tenant_claim,
        fixed_tenant=config.jwt_tenant,
        role=config.jwt_role_claim,
        fixed_role=config.jwt_role,
        roles=roles or {each: each for each in ROLES},
    )


def _context(config: Config) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if config.jwt_ca_file:
        try:
            context.load_verify_locations(config.jwt_ca_file)
        except (OSError, ssl.SSLError) as error:
            name = config.name_of("jwt_ca_file")
            raise ConfigError(f"{name}: cannot be used: {error}") from None
    return context
