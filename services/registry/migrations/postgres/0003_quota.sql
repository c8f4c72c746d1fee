-- Whether an environment counts as a workspace of its tenant's.
ALTER TABLE environment ADD COLUMN counted INTEGER NOT NULL DEFAULT 1;

UPDATE environment SET counted = 0 WHERE state = 6;

-- What each tenant has, and may have. `counted` changes with the environments, in the same
-- transaction. A limit of 0 is the operator's default, one of -1 is none.
CREATE TABLE quota (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    counted BIGINT NOT NULL DEFAULT 0,
    workspaces BIGINT NOT NULL DEFAULT 0,
    active_environments BIGINT NOT NULL DEFAULT 0,
    executions BIGINT NOT NULL DEFAULT 0,
    disk_bytes BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 0,
    update_time BIGINT NOT NULL DEFAULT 0
);

INSERT INTO quota (tenant, counted) SELECT tenant, sum(counted)::bigint FROM environment GROUP BY tenant;

-- Who did what. `document` is the whole AuditEntry; the columns beside it are what is searched
-- and sorted by. Rows are never changed; what is too old is deleted, and that is counted.
CREATE TABLE audit (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    time BIGINT NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    code TEXT NOT NULL,
    document BYTEA NOT NULL
);

CREATE INDEX audit_tenant ON audit (tenant, time, id);

CREATE INDEX audit_time ON audit (time);

-- One row. `until` is the time before which entries were removed, `count` how many.
CREATE TABLE audit_removed (
    until BIGINT NOT NULL,
    count BIGINT NOT NULL
);

INSERT INTO audit_removed VALUES (0, 0);
