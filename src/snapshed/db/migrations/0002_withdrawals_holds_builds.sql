-- Images can be withdrawn, snapshots held, and builds uploaded. Candidates know their project, so that every project's
-- get their turn.

-- Builds: artifacts that are not snapshots ------------------------------------------------------------------------------

CREATE TABLE build (
    artifact_id     uuid PRIMARY KEY REFERENCES artifact,
    file_id         uuid NOT NULL CONSTRAINT build_file_is_a_blob REFERENCES blob,
    manifest_id     uuid NOT NULL CONSTRAINT build_manifest_is_a_blob REFERENCES blob,
    file_name       text NOT NULL,
    size            bigint NOT NULL CHECK (size >= 0),
    digest          text NOT NULL,
    head_sha        text,
    head_repo_name  text,
    head_ref        text,
    facts           jsonb NOT NULL DEFAULT '{}',
    created_by      text NOT NULL
);
COMMENT ON TABLE build IS 'One uploaded file with its metadata: an app, an archive, anything. Deleted like every artifact.';
COMMENT ON COLUMN build.facts IS 'What the uploader said about the file, as JSON.';
CREATE INDEX build_file ON build (file_id);
CREATE INDEX build_manifest ON build (manifest_id);

-- Holds -----------------------------------------------------------------------------------------------------------------

CREATE TABLE hold (
    id           uuid PRIMARY KEY,
    artifact_id  uuid NOT NULL REFERENCES artifact,
    reason       text NOT NULL CHECK (reason <> ''),
    placed_by    text NOT NULL,
    placed_at    timestamptz NOT NULL,
    ends_at      timestamptz
);
COMMENT ON TABLE hold IS 'While it stands, nobody and no rule can delete the artifact. Its manifest carries it too.';
CREATE INDEX hold_artifact ON hold (artifact_id);

-- A third owner of announced objects: the artifact itself, for what is made for it after its commit ------------------------

ALTER TABLE blob ADD COLUMN artifact_id uuid REFERENCES artifact;
ALTER TABLE blob DROP CONSTRAINT blob_pending_has_owner_and_deadline;
ALTER TABLE blob DROP CONSTRAINT blob_live_has_no_owner;
ALTER TABLE blob ADD CONSTRAINT blob_pending_has_owner_and_deadline
    CHECK (state = 'live' OR (put_deadline IS NOT NULL AND num_nonnulls(session_id, comparison_id, artifact_id) = 1));
ALTER TABLE blob ADD CONSTRAINT blob_live_has_no_owner
    CHECK (state = 'pending' OR num_nonnulls(session_id, comparison_id, artifact_id) = 0);
CREATE INDEX blob_artifact ON blob (artifact_id) WHERE artifact_id IS NOT NULL;

-- Withdrawn images --------------------------------------------------------------------------------------------------------

CREATE INDEX comparison_image_head_digest ON comparison_image (head_digest) WHERE mask_id IS NOT NULL;
CREATE INDEX comparison_image_base_digest ON comparison_image (base_digest) WHERE mask_id IS NOT NULL;

-- What people are told -------------------------------------------------------------------------------------------------------

ALTER TABLE session ADD COLUMN cancelled_by uuid REFERENCES deletion;
COMMENT ON COLUMN session.cancelled_by IS 'The urgent deletion that ended this upload; its receipt says so.';
CREATE INDEX session_cancelled ON session (cancelled_by) WHERE cancelled_by IS NOT NULL;

ALTER TABLE snapshot ADD COLUMN lost_base bigint;
COMMENT ON COLUMN snapshot.lost_base IS 'The number of the base this was compared with, once that base was deleted.';

-- The two questions, with the new references ---------------------------------------------------------------------------------

CREATE OR REPLACE VIEW blob_reference AS
    SELECT image_id AS blob_id FROM snapshot_image WHERE image_id IS NOT NULL
    UNION ALL SELECT manifest_id FROM snapshot
    UNION ALL SELECT report_id FROM comparison WHERE report_id IS NOT NULL
    UNION ALL SELECT mask_id FROM comparison_image WHERE mask_id IS NOT NULL
    UNION ALL SELECT blob_id FROM object
    UNION ALL SELECT file_id FROM build
    UNION ALL SELECT manifest_id FROM build;

CREATE OR REPLACE VIEW live_reference AS
    SELECT i.image_id AS blob_id
      FROM snapshot_image i, LATERAL (SELECT FROM artifact a WHERE a.id = i.artifact_id AND a.deletion_id IS NULL OFFSET 0) a
     WHERE i.image_id IS NOT NULL AND i.withdrawn_by IS NULL
    UNION ALL
    SELECT s.manifest_id FROM snapshot s JOIN artifact a ON a.id = s.artifact_id WHERE a.deletion_id IS NULL
    UNION ALL
    SELECT c.report_id
      FROM comparison c JOIN artifact h ON h.id = c.head_id JOIN artifact b ON b.id = c.base_id
     WHERE c.report_id IS NOT NULL AND h.deletion_id IS NULL AND b.deletion_id IS NULL
    UNION ALL
    SELECT i.mask_id
      FROM comparison_image i
      JOIN comparison c ON c.id = i.comparison_id JOIN artifact h ON h.id = c.head_id JOIN artifact b ON b.id = c.base_id
     WHERE i.mask_id IS NOT NULL AND h.deletion_id IS NULL AND b.deletion_id IS NULL
    UNION ALL SELECT blob_id FROM object
    UNION ALL
    SELECT d.file_id FROM build d JOIN artifact a ON a.id = d.artifact_id WHERE a.deletion_id IS NULL
    UNION ALL
    SELECT d.manifest_id FROM build d JOIN artifact a ON a.id = d.artifact_id WHERE a.deletion_id IS NULL;

-- Candidates of every project in turn -----------------------------------------------------------------------------------------

ALTER TABLE candidate ADD COLUMN project_id bigint;
UPDATE candidate c SET project_id = (SELECT b.project_id FROM blob b WHERE b.id = c.blob_id);
UPDATE candidate SET project_id = 0 WHERE project_id IS NULL;
ALTER TABLE candidate ALTER COLUMN project_id SET NOT NULL;
CREATE INDEX candidate_turn ON candidate (project_id, seq);
COMMENT ON COLUMN candidate.project_id IS 'So that one project''s million candidates delay no other project''s ten.';

-- A blob that many rows of one statement named is enqueued once.
CREATE OR REPLACE FUNCTION enqueue_snapshot_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'snapshot_image'
      FROM (SELECT DISTINCT image_id FROM gone WHERE image_id IS NOT NULL) g JOIN blob b ON b.id = g.image_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION enqueue_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'snapshot' FROM gone g JOIN blob b ON b.id = g.manifest_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION enqueue_comparison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'comparison' FROM gone g JOIN blob b ON b.id = g.report_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION enqueue_comparison_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'comparison_image'
      FROM (SELECT DISTINCT mask_id FROM gone WHERE mask_id IS NOT NULL) g JOIN blob b ON b.id = g.mask_id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION enqueue_blob_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, TG_TABLE_NAME FROM gone g JOIN blob b ON b.id = g.blob_id;
    RETURN NULL;
END $$;

CREATE FUNCTION enqueue_build() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'build' FROM gone g JOIN blob b ON b.id IN (g.file_id, g.manifest_id);
    RETURN NULL;
END $$;
CREATE TRIGGER build_deleted AFTER DELETE ON build
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_build();
CREATE TRIGGER build_changed AFTER UPDATE ON build
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_build();

UPDATE installation SET protocol = 2;
