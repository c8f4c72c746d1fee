-- By what callers are known. Times are nanoseconds since 1970; a `revoke_time` of 0 is none. One
-- with a `workspace_uid` is a share, and valid as long as that environment is.
CREATE TABLE token (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    role INTEGER NOT NULL,
    workspace TEXT NOT NULL,
    workspace_uid TEXT NOT NULL,
    description TEXT NOT NULL,
    creator TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    revoke_time INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX token_expire_time ON token (expire_time);

-- SHA-256 of the secrets of a token: one of each answer that told of it. None when it is revoked.
CREATE TABLE token_hash (
    hash BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    time INTEGER NOT NULL
) STRICT;

CREATE INDEX token_hash_token ON token_hash (tenant, id, time);
