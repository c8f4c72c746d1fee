-- What lists are ordered by. The registry fills them from the documents, which SQL
-- cannot read, as part of this migration.
ALTER TABLE environment
    ADD COLUMN create_time BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN update_time BIGINT NOT NULL DEFAULT 0;

CREATE INDEX environment_state ON environment (tenant, state, name);
CREATE INDEX environment_create_time ON environment (tenant, create_time, name);
CREATE INDEX environment_update_time ON environment (tenant, update_time, name);

-- The revision of what a change replaced: 0 where nothing was there, -1 where it is not
-- known. A filtered watch tells by it what has left its selection.
ALTER TABLE change ADD COLUMN previous BIGINT NOT NULL DEFAULT -1;
