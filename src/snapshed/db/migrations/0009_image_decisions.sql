-- People decide image by image, and may take a decision back. Every decision says through which door it came.

CREATE TABLE image_decision (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    artifact_id  uuid NOT NULL REFERENCES artifact,
    batch        uuid NOT NULL,
    name         text NOT NULL,
    category     text NOT NULL CHECK (category IN ('added', 'removed', 'changed', 'renamed', 'errored')),
    head_digest  text,
    base_digest  text,
    decision     text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    actor        text NOT NULL,
    door         text NOT NULL CHECK (door IN ('page', 'api')),
    since        bigint,
    decided_at   timestamptz NOT NULL,
    undone_at    timestamptz,
    undone_by    text,
    CONSTRAINT image_decision_is_undone_by_somebody CHECK ((undone_at IS NULL) = (undone_by IS NULL))
);
COMMENT ON TABLE image_decision IS 'What people decided about one difference of a snapshot. Only ever added to, or taken back.';
COMMENT ON COLUMN image_decision.batch IS 'Decisions taken, and taken back, together: a group of images that change alike.';
COMMENT ON COLUMN image_decision.category IS 'What was decided about, with both digests: a comparison with other images asks again.';
COMMENT ON COLUMN image_decision.since IS 'The decision about the whole snapshot that stood then; a later one is the newer word about every image.';
CREATE INDEX image_decision_newest ON image_decision (artifact_id, name, id DESC);
CREATE INDEX image_decision_batch ON image_decision (batch);

ALTER TABLE approval
    ADD COLUMN door       text CHECK (door IN ('page', 'api', 'rule')),
    ADD COLUMN by_images  boolean NOT NULL DEFAULT false,
    ADD COLUMN undone_at  timestamptz,
    ADD COLUMN undone_by  text,
    ADD CONSTRAINT approval_is_undone_by_somebody CHECK ((undone_at IS NULL) = (undone_by IS NULL));
COMMENT ON COLUMN approval.door IS 'How it was decided: on a page, through the API, or by the rule that repeats an approval. Null: by an earlier release.';
COMMENT ON COLUMN approval.by_images IS 'True: it follows from the decisions about every image, and goes when they change.';
UPDATE approval SET door = 'rule' WHERE actor LIKE 'auto:%';

-- A worker of an earlier release does not know of these rows, and could not let go of a snapshot that has some.
UPDATE installation SET protocol = greatest(protocol, 3);
