-- A database that was lost and is built again from the store, or that is older than the store and catches up with it.

ALTER TABLE installation
    ADD COLUMN recovering boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS retention_paused_for text CHECK (retention_paused_for <> ''),
    ADD COLUMN mark bigint NOT NULL DEFAULT 0,
    ADD COLUMN marked_at_state text NOT NULL DEFAULT '';
COMMENT ON COLUMN installation.mark IS 'Rises while anything happens, here first and then in the store: a store that knows a higher one has lived longer than this database.';
COMMENT ON COLUMN installation.marked_at_state IS 'What the mark stood for when it last rose.';
COMMENT ON COLUMN installation.recovering IS 'A rebuild has begun and not ended: nobody else may open this database.';
COMMENT ON COLUMN installation.retention_paused_for IS 'Why no rule deletes anything until somebody confirms it; null: rules work.';

-- Receipts that were signed before the database was lost can still be checked, with the public key the store keeps.
ALTER TABLE signing_key ALTER COLUMN private_pem DROP NOT NULL;
COMMENT ON COLUMN signing_key.private_pem IS 'Null where only the public half has outlived a lost database.';

ALTER TABLE project ADD COLUMN named_at timestamptz;
COMMENT ON COLUMN project.named_at IS 'When its name was written into the store, for a rebuild. Null: still to be written.';

ALTER TABLE deletion ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY;
COMMENT ON COLUMN deletion.seq IS 'Counts deletions, so that the mark of the installation rises with each.';

ALTER TABLE deletion ADD COLUMN recovered boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN deletion.recovered IS
    'Taken from the store''s journal: what it had let go of before is not known, so its receipt cannot be counted after.';
