"""The issuer of tokens that the gateway trusts, as it is configured."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config import Config
from gateway.identity.jwt import Claims, JwtAuthenticator
from gateway.identity.keys import FetchedKeys, FileKeys, is_safe
from gateway.identity.names import ROLES, TENANT
from servicekit.config import ConfigError


@asynccontextmanager
async def trusted(config: Config) -> AsyncIterator[JwtAuthenticator | None]:
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
        if not value or role not in ROLES:
            raise ConfigError(f"{config.name_of('jwt_roles')}: not value={'|'.join(ROLES)}: {role}")
    return Claims(
        issuer=config.jwt_issuer,
        audience=config.jwt_audience,
        principal=config.jwt_principal_claim,
        tenant=config.jwt_tenant_claim,
        fixed_tenant=config.jwt_tenant,
        role=config.jwt_role_claim,
        fixed_role=config.jwt_role,
        roles=roles,
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
