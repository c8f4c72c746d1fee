-- Whether an environment counts as a workspace of its tenant's.
ALTER TABLE environment ADD COLUMN counted INTEGER NOT NULL DEFAULT 1;

UPDATE environment SET counted = 0 WHERE state = 6;

-- What each tenant has, and may have. `counted` changes with the environments, in the same
-- transaction. A limit of 0 is the operator's default, one of -1 is none.
CREATE TABLE quota (
    tenant TEXT PRIMARY KEY,
    counted INTEGER NOT NULL DEFAULT 0,
    workspaces INTEGER NOT NULL DEFAULT 0,
    active_environments INTEGER NOT NULL DEFAULT 0,
    executions INTEGER NOT NULL DEFAULT 0,
    disk_bytes INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    update_time INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO quota (tenant, counted) SELECT tenant, sum(counted) FROM environment GROUP BY tenant;

-- Who did what. `document` is the whole AuditEntry; the columns beside it are what is searched
-- and sorted by. Rows are never changed; what is too old is deleted, and that is counted.
CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    time INTEGER NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    code TEXT NOT NULL,
    document BLOB NOT NULL
) STRICT;

CREATE INDEX audit_tenant ON audit (tenant, time, id);

CREATE INDEX audit_time ON audit (time);

-- One row. `until` is the time before which entries were removed, `count` how many.
CREATE TABLE audit_removed (
    until INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;

INSERT INTO audit_removed VALUES (0, 0);
