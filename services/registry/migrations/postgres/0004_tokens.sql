-- By what callers are known. Times are nanoseconds since 1970; a `revoke_time` of 0 is none. One
-- with a `workspace_uid` is a share, and valid as long as that environment is.
CREATE TABLE token (
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    role INTEGER NOT NULL,
    workspace TEXT NOT NULL,
    workspace_uid TEXT COLLATE "C" NOT NULL,
    description TEXT NOT NULL,
    creator TEXT NOT NULL,
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    revoke_time BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX token_expire_time ON token (expire_time);

-- SHA-256 of the secrets of a token: one of each answer that told of it. None when it is revoked.
CREATE TABLE token_hash (
    hash BYTEA PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    time BIGINT NOT NULL
);

CREATE INDEX token_hash_token ON token_hash (tenant, id, time);
