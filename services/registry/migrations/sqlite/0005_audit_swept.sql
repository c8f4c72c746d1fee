-- How many entries of each tenant's were removed as they were too old, and until when. What
-- `audit_removed` has is over all tenants: it stays for a registry of before that still runs, and
-- nobody else reads it.
CREATE TABLE audit_swept (
    tenant TEXT PRIMARY KEY,
    until INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;

-- Whose the entries of before were is not known, unless there is one tenant only. The others are
-- told that some were removed, but not how many.
WITH known AS (
    SELECT tenant FROM quota UNION SELECT tenant FROM audit UNION SELECT tenant FROM token
)
INSERT INTO audit_swept (tenant, until, count)
SELECT known.tenant, removed.until,
    CASE WHEN (SELECT count(*) FROM known) = 1 THEN removed.count ELSE 0 END
FROM known CROSS JOIN audit_removed removed WHERE removed.count > 0;
