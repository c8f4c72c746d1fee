-- What lists are ordered by. `nanoseconds` is a function of the registry's: SQL cannot
-- read the documents of before.
ALTER TABLE environment ADD COLUMN create_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE environment ADD COLUMN update_time INTEGER NOT NULL DEFAULT 0;

UPDATE environment SET
    create_time = nanoseconds(document, 'create_time'),
    update_time = nanoseconds(document, 'update_time');

CREATE INDEX environment_state ON environment (tenant, state, name);
CREATE INDEX environment_create_time ON environment (tenant, create_time, name);
CREATE INDEX environment_update_time ON environment (tenant, update_time, name);

-- The revision of what a change replaced: 0 where nothing was there, -1 where it is not
-- known. A filtered watch tells by it what has left its selection.
ALTER TABLE change ADD COLUMN previous INTEGER NOT NULL DEFAULT -1;
