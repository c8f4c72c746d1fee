-- Times are nanoseconds since 1970. `document` is the whole Environment message;
-- the columns beside it are what is searched, sorted or decided by.

CREATE TABLE environment (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    operation INTEGER NOT NULL,
    lease_start INTEGER NOT NULL,
    lease_end INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;

CREATE INDEX environment_name ON environment (name, tenant);

-- One row for each revision: what WatchEnvironments resumes from. A row without a
-- document is a removal.
CREATE TABLE change (
    revision INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    document BLOB
) STRICT;

-- Answers given to request ids, written with what they answer.
CREATE TABLE request (
    tenant TEXT NOT NULL,
    principal TEXT NOT NULL,
    rpc TEXT NOT NULL,
    request_id TEXT NOT NULL,
    time INTEGER NOT NULL,
    digest BLOB NOT NULL,
    response BLOB NOT NULL,
    PRIMARY KEY (tenant, principal, rpc, request_id)
) STRICT;

CREATE INDEX request_time ON request (time);

-- One row. `latest` is the last revision given out, `compacted` the last one whose
-- change was thrown away.
CREATE TABLE counter (
    latest INTEGER NOT NULL,
    compacted INTEGER NOT NULL
) STRICT;

INSERT INTO counter VALUES (0, 0);

-- Secrets of this database, which are as private as its file.
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;
