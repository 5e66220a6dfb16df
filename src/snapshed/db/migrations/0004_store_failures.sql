-- What the store was seen to keep, how often it failed, and what came back although it had said that it was gone.

ALTER TABLE installation
    ADD COLUMN store_keeps text NOT NULL DEFAULT 'unknown'
        CONSTRAINT installation_store_keeps_is_known CHECK (store_keeps IN ('nothing', 'versions', 'unknown'));
COMMENT ON COLUMN installation.store_keeps IS 'What the store keeps of removed objects, as far as the last probe could see; receipts say it.';

ALTER TABLE release ADD COLUMN returned integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN release.returned IS 'How often the store said that the object was removed and had it when it was asked again.';

CREATE TABLE removal_count (
    outcome      text PRIMARY KEY CHECK (outcome IN ('removed', 'unavailable', 'throttled', 'refused')),
    objects      bigint NOT NULL,
    bytes        bigint NOT NULL
);
COMMENT ON TABLE removal_count IS 'Removals since the beginning, by what the store answered, for the metrics. One row an outcome.';
