-- What is told about every decoded pair, and how a pair that was decoded before is found again.

ALTER TABLE comparison_image
    ADD COLUMN threshold_from  text CHECK (threshold_from IN ('image', 'manifest', 'default')),
    ADD COLUMN regions         integer[],
    ADD COLUMN fingerprint     text,
    ADD COLUMN explanation     text CHECK (explanation IN ('identical', 'imperceptible', 'antialiasing', 'moved')),
    ADD COLUMN moved_by        integer;
COMMENT ON COLUMN comparison_image.threshold_from IS 'Whose threshold is in force: the image''s own, its manifest''s, or none was given.';
COMMENT ON COLUMN comparison_image.regions IS 'Boxes around what changed, each left, top, width and height in pixels of the canvas.';
COMMENT ON COLUMN comparison_image.fingerprint IS 'The same for the same change, on whatever image and at whatever place.';
COMMENT ON COLUMN comparison_image.moved_by IS 'Rows that the content moved, down if positive, where moving explains the difference.';
COMMENT ON COLUMN comparison_image.mask_id IS 'May be named by several rows: the same two images, compared for several snapshots.';

-- A pair of images that was decoded once is not decoded again.
CREATE INDEX comparison_image_decoded ON comparison_image (head_digest, base_digest) WHERE total_pixels IS NOT NULL;

-- Why this base and no other, and whose images a partial base stands for.
ALTER TABLE comparison
    ADD COLUMN passed_over  jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN ancestors    bigint[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN comparison.passed_over IS 'Snapshots of the base commit that were not chosen: number and reason, newest first.';
COMMENT ON COLUMN comparison.ancestors IS 'Numbers of the snapshots from which a partial base took what it does not hold, nearest first. No byte of theirs is kept for it.';
