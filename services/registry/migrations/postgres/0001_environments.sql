-- Times are nanoseconds since 1970. `document` is the whole Environment message;
-- the columns beside it are what is searched, sorted or decided by. Names compare
-- by their bytes, whatever the collation of the database.

CREATE TABLE environment (
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    operation INTEGER NOT NULL,
    lease_start BIGINT NOT NULL,
    lease_end BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    document BYTEA NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE INDEX environment_name ON environment (name, tenant);

-- One row for each revision: what WatchEnvironments resumes from. A row without a
-- document is a removal.
CREATE TABLE change (
    revision BIGINT PRIMARY KEY,
    time BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    uid TEXT COLLATE "C" NOT NULL,
    document BYTEA
);

-- Answers given to request ids, written with what they answer.
CREATE TABLE request (
    tenant TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    rpc TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    time BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    response BYTEA NOT NULL,
    PRIMARY KEY (tenant, principal, rpc, request_id)
);

CREATE INDEX request_time ON request (time);

-- One row, and the lock that every writer of every registry takes. `latest` is the
-- last revision given out, `compacted` the last one whose change was thrown away.
CREATE TABLE counter (
    latest BIGINT NOT NULL,
    compacted BIGINT NOT NULL
);

INSERT INTO counter VALUES (0, 0);

-- Secrets of this database, which are as private as it is.
CREATE TABLE secret (
    name TEXT COLLATE "C" PRIMARY KEY,
    value BYTEA NOT NULL
);
