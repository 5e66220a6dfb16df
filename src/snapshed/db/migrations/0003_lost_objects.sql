-- Objects whose bytes the store has lost or altered are marked, promised to nobody, and healed by the next upload.

ALTER TABLE blob ADD COLUMN lost_at timestamptz
    CONSTRAINT blob_lost_was_live CHECK (lost_at IS NULL OR state = 'live');
COMMENT ON COLUMN blob.lost_at IS
    'Since when the store is known not to have these bytes: nobody may read, promise or name the row, which keeps its references until an upload replaces it.';

-- One image of a digest may be whole; any number beside it may be lost. The index still answers every question by digest.
DROP INDEX blob_image_is_unique;
CREATE UNIQUE INDEX blob_image_is_unique
    ON blob (project_id, digest, (CASE WHEN lost_at IS NOT NULL THEN id END)) NULLS NOT DISTINCT
    WHERE state = 'live' AND kind = 'image';
CREATE INDEX blob_lost ON blob (id) WHERE lost_at IS NOT NULL;

ALTER TABLE candidate ADD COLUMN queued_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN candidate.queued_at IS 'For people only: a candidate that nobody takes means that no worker runs.';
