-- The schema of the deletion protocol. What must always be true is written here, not only in Python:
-- every reference to stored bytes is a foreign key to blob without a cascade, and whoever lets go of a blob
-- enqueues it by trigger in the same transaction.

CREATE TABLE installation (
    only_one     boolean PRIMARY KEY DEFAULT true CONSTRAINT installation_is_one CHECK (only_one),
    id           uuid NOT NULL,
    epoch        integer NOT NULL CHECK (epoch >= 1),
    protocol     integer NOT NULL,
    address      text,
    created_at   timestamptz NOT NULL
);
COMMENT ON COLUMN installation.epoch IS 'Raised by every rebuild; part of every storage key, so that no key is ever issued twice.';
COMMENT ON COLUMN installation.protocol IS 'A worker of another protocol number refuses to work on this database.';
COMMENT ON COLUMN installation.address IS 'Where serve last answered; new tokens carry it.';

CREATE TABLE signing_key (
    kid          text PRIMARY KEY,
    purpose      text NOT NULL CHECK (purpose IN ('receipt', 'upload')),
    private_pem  text NOT NULL,
    public_pem   text NOT NULL,
    created_at   timestamptz NOT NULL
);

-- Who ------------------------------------------------------------------------------------------------------------

CREATE TABLE org (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug         text NOT NULL CONSTRAINT org_slug_is_unique UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    created_at   timestamptz NOT NULL
);

CREATE TABLE project (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id       bigint NOT NULL REFERENCES org,
    slug         text NOT NULL CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    state        text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'deleting')),
    created_at   timestamptz NOT NULL,
    CONSTRAINT project_slug_is_unique UNIQUE (org_id, slug)
);

CREATE TABLE token (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org_id       bigint NOT NULL REFERENCES org,
    project_id   bigint REFERENCES project,
    name         text NOT NULL,
    scopes       text[] NOT NULL CHECK (scopes <@ ARRAY['read', 'upload', 'review', 'delete', 'admin']),
    hash         bytea NOT NULL CONSTRAINT token_hash_is_unique UNIQUE,
    created_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
COMMENT ON COLUMN token.hash IS 'SHA-256 of the whole token; the token itself is never stored.';
COMMENT ON COLUMN token.project_id IS 'Null: every project of the organization.';

CREATE TABLE sign_in (
    hash         bytea PRIMARY KEY,
    token_id     bigint NOT NULL REFERENCES token,
    kind         text NOT NULL CHECK (kind IN ('once', 'browser')),
    csrf         text NOT NULL,
    ends_at      timestamptz NOT NULL
);
COMMENT ON TABLE sign_in IS 'A browser''s session, or an address that signs a person in once.';

-- What was uploaded as one thing -----------------------------------------------------------------------------------

CREATE SEQUENCE artifact_number AS bigint;

CREATE TABLE deletion (
    id            uuid PRIMARY KEY,
    org_id        bigint NOT NULL REFERENCES org,
    project_id    bigint REFERENCES project,
    target        jsonb NOT NULL,
    requested_by  text NOT NULL,
    reason        text,
    urgent        boolean NOT NULL DEFAULT false,
    request_id    text,
    state         text NOT NULL DEFAULT 'removing' CHECK (state IN ('removing', 'complete')),
    snapshots     bigint[] NOT NULL,
    artifacts     uuid[] NOT NULL,
    rows          json NOT NULL,
    requested_at  timestamptz NOT NULL,
    journaled_at  timestamptz,
    completed_at  timestamptz,
    verified_at   timestamptz,
    receipt       json,
    receipt_journaled_at timestamptz,
    CONSTRAINT deletion_is_complete_with_a_receipt
        CHECK ((state = 'complete') = (receipt IS NOT NULL) AND (state = 'complete') = (completed_at IS NOT NULL)),
    CONSTRAINT deletion_completes_journaled CHECK (state = 'removing' OR journaled_at IS NOT NULL)
);
COMMENT ON COLUMN deletion.receipt IS 'As signed, in the order of its fields: json, not jsonb.';
CREATE UNIQUE INDEX deletion_request_is_unique ON deletion (org_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX deletion_open ON deletion (requested_at) WHERE state = 'removing';
CREATE INDEX deletion_snapshots ON deletion USING gin (snapshots);

CREATE TABLE artifact (
    id           uuid PRIMARY KEY,
    project_id   bigint NOT NULL REFERENCES project,
    number       bigint NOT NULL DEFAULT nextval('artifact_number') CONSTRAINT artifact_number_is_unique UNIQUE,
    kind         text NOT NULL CHECK (kind IN ('snapshot', 'build')),
    app_id       text NOT NULL,
    deletion_id  uuid REFERENCES deletion,
    created_at   timestamptz NOT NULL
);
COMMENT ON COLUMN artifact.deletion_id IS 'Set: the artifact is marked; nothing reads, promises, names or compares it any more.';
CREATE INDEX artifact_project ON artifact (project_id, created_at DESC, number DESC);
CREATE INDEX artifact_marked ON artifact (deletion_id) WHERE deletion_id IS NOT NULL;

-- Stored bytes ------------------------------------------------------------------------------------------------------

CREATE TABLE session (
    id            uuid PRIMARY KEY,
    project_id    bigint NOT NULL REFERENCES project,
    principal     text NOT NULL,
    artifact_id   uuid NOT NULL CONSTRAINT session_artifact_is_unique UNIQUE,
    state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'committed', 'expired', 'cancelled')),
    opened_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL,
    request_hash  text,
    number        bigint,
    committed_at  timestamptz,
    CONSTRAINT session_remembers_its_commit
        CHECK ((state = 'committed') = (number IS NOT NULL) AND (state = 'committed') = (committed_at IS NOT NULL))
);
COMMENT ON COLUMN session.artifact_id IS 'Minted with the session, so every attempt of its create writes for the same artifact.';
CREATE INDEX session_open ON session (ends_at) WHERE state = 'open';
CREATE INDEX session_project_open ON session (project_id) WHERE state = 'open';
CREATE INDEX session_requests ON session (project_id, request_hash) WHERE state = 'committed';

CREATE TABLE comparison (
    id             uuid PRIMARY KEY,
    head_id        uuid NOT NULL REFERENCES artifact,
    base_id        uuid NOT NULL REFERENCES artifact,
    state          text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    report_id      uuid,
    counts         jsonb,
    algorithm      text,
    error          text,
    attempts       integer NOT NULL DEFAULT 0,
    claim          uuid,
    claimed_until  timestamptz,
    created_at     timestamptz NOT NULL,
    finished_at    timestamptz,
    CONSTRAINT comparison_pair_is_unique UNIQUE (head_id, base_id),
    CONSTRAINT comparison_is_done_with_a_report CHECK ((state = 'done') = (report_id IS NOT NULL))
);
CREATE INDEX comparison_base ON comparison (base_id);
CREATE INDEX comparison_unfinished ON comparison (created_at) WHERE state IN ('waiting', 'running');

CREATE TABLE blob (
    id             uuid PRIMARY KEY,
    project_id     bigint NOT NULL REFERENCES project,
    kind           text NOT NULL CHECK (kind IN ('image', 'manifest', 'comparison', 'mask', 'thumbnail', 'archive', 'file')),
    digest         text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    size           bigint NOT NULL CHECK (size >= 0),
    storage_key    text NOT NULL CONSTRAINT blob_storage_key_is_unique UNIQUE,
    state          text NOT NULL CHECK (state IN ('pending', 'live')),
    put_deadline   timestamptz,
    session_id     uuid REFERENCES session,
    comparison_id  uuid REFERENCES comparison,
    made_of        uuid[] NOT NULL DEFAULT '{}',
    announced_at   timestamptz NOT NULL,
    CONSTRAINT blob_pending_has_owner_and_deadline
        CHECK (state = 'live' OR (put_deadline IS NOT NULL AND num_nonnulls(session_id, comparison_id) = 1)),
    CONSTRAINT blob_live_has_no_owner CHECK (state = 'pending' OR num_nonnulls(session_id, comparison_id) = 0)
);
COMMENT ON TABLE blob IS 'One stored object, from before its first byte. A condemned one is moved to tombstone and can never be named again.';
COMMENT ON COLUMN blob.put_deadline IS 'Until when a PUT of this key may still land; null once every attempt is answered.';
COMMENT ON COLUMN blob.made_of IS 'The artifacts a derived object was computed from; their deletion releases it.';
CREATE UNIQUE INDEX blob_image_is_unique ON blob (project_id, digest) WHERE state = 'live' AND kind = 'image';
CREATE INDEX blob_session ON blob (session_id) WHERE session_id IS NOT NULL;
CREATE INDEX blob_comparison ON blob (comparison_id) WHERE comparison_id IS NOT NULL;
CREATE INDEX blob_made_of ON blob USING gin (made_of) WHERE made_of <> '{}';

ALTER TABLE comparison ADD CONSTRAINT comparison_report_is_a_blob FOREIGN KEY (report_id) REFERENCES blob;
CREATE INDEX comparison_report ON comparison (report_id) WHERE report_id IS NOT NULL;

CREATE TABLE pin (
    session_id   uuid NOT NULL REFERENCES session,
    blob_id      uuid NOT NULL CONSTRAINT pin_blob_is_a_blob REFERENCES blob,
    how          text NOT NULL CHECK (how IN ('told', 'stored')),
    PRIMARY KEY (session_id, blob_id)
);
CREATE INDEX pin_blob ON pin (blob_id);

CREATE TABLE snapshot (
    artifact_id     uuid PRIMARY KEY REFERENCES artifact,
    manifest_id     uuid NOT NULL CONSTRAINT snapshot_manifest_is_a_blob REFERENCES blob,
    image_count     integer NOT NULL,
    selective       boolean NOT NULL,
    all_names       text[],
    diff_threshold  double precision CHECK (diff_threshold >= 0 AND diff_threshold < 1),
    head_sha        text,
    base_sha        text,
    provider        text,
    head_repo_name  text,
    base_repo_name  text,
    head_ref        text,
    base_ref        text,
    pr_number       integer,
    created_by      text NOT NULL
);
CREATE INDEX snapshot_manifest ON snapshot (manifest_id);
CREATE INDEX snapshot_head_commit ON snapshot (head_sha, head_repo_name);
CREATE INDEX snapshot_base_commit ON snapshot (base_sha, base_repo_name);

CREATE TABLE snapshot_image (
    artifact_id     uuid NOT NULL REFERENCES snapshot,
    name            text NOT NULL,
    image_id        uuid CONSTRAINT snapshot_image_is_a_blob REFERENCES blob,
    digest          text NOT NULL,
    width           integer NOT NULL,
    height          integer NOT NULL,
    diff_threshold  double precision,
    facts           jsonb NOT NULL DEFAULT '{}',
    withdrawn_by    uuid REFERENCES deletion,
    PRIMARY KEY (artifact_id, name),
    CONSTRAINT snapshot_image_has_bytes_unless_withdrawn CHECK (image_id IS NOT NULL OR withdrawn_by IS NOT NULL)
);
COMMENT ON COLUMN snapshot_image.facts IS 'What the uploader said about the image besides its size: display name, group, tags and the like.';
CREATE INDEX snapshot_image_blob ON snapshot_image (image_id) WHERE image_id IS NOT NULL;

CREATE TABLE comparison_image (
    comparison_id   uuid NOT NULL REFERENCES comparison,
    name            text NOT NULL,
    category        text NOT NULL
                    CHECK (category IN ('added', 'removed', 'changed', 'unchanged', 'renamed', 'skipped', 'errored')),
    head_digest     text,
    base_digest     text,
    previous_name   text,
    changed_pixels  bigint,
    total_pixels    bigint,
    threshold       double precision,
    head_width      integer,
    head_height     integer,
    base_width      integer,
    base_height     integer,
    reason          text,
    detail          text,
    mask_id         uuid CONSTRAINT comparison_image_mask_is_a_blob REFERENCES blob,
    PRIMARY KEY (comparison_id, name)
);
COMMENT ON TABLE comparison_image IS 'Every decoded pair and every name that is not unchanged.';
CREATE INDEX comparison_image_mask ON comparison_image (mask_id) WHERE mask_id IS NOT NULL;

CREATE TABLE approval (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    artifact_id  uuid NOT NULL REFERENCES artifact,
    decision     text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    actor        text NOT NULL,
    decided_at   timestamptz NOT NULL
);
CREATE INDEX approval_artifact ON approval (artifact_id, id DESC);

CREATE TABLE object (
    project_id        bigint NOT NULL REFERENCES project,
    use_case          text NOT NULL,
    scopes            text NOT NULL,
    key               text NOT NULL,
    blob_id           uuid NOT NULL CONSTRAINT object_is_a_blob REFERENCES blob,
    metadata          jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz,
    PRIMARY KEY (project_id, use_case, scopes, key)
);
COMMENT ON TABLE object IS 'A pointer of the general blob API: a caller''s key and the blob it names now.';
CREATE INDEX object_blob ON object (blob_id);

-- Two questions about a blob, spelled here and nowhere else -------------------------------------------------------------
-- They are asked as EXISTS (SELECT FROM ... WHERE blob_id = b.id OFFSET 0). OFFSET keeps the planner from turning the
-- question into a join with the whole view: it must cost a few index look-ups a blob, however many snapshots there are.

CREATE VIEW blob_reference AS
    SELECT image_id AS blob_id FROM snapshot_image WHERE image_id IS NOT NULL
    UNION ALL SELECT manifest_id FROM snapshot
    UNION ALL SELECT report_id FROM comparison WHERE report_id IS NOT NULL
    UNION ALL SELECT mask_id FROM comparison_image WHERE mask_id IS NOT NULL
    UNION ALL SELECT blob_id FROM object;
COMMENT ON VIEW blob_reference IS 'Whatever keeps bytes: every reference, of marked artifacts and withdrawn images too.';

CREATE VIEW live_reference AS
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
    UNION ALL SELECT blob_id FROM object;
COMMENT ON VIEW live_reference IS 'Whatever lets somebody read, promise or name a blob: references of unmarked artifacts only.';

-- Letting go ---------------------------------------------------------------------------------------------------------

CREATE TABLE candidate (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    blob_id      uuid NOT NULL,
    cause        text NOT NULL
);
COMMENT ON TABLE candidate IS 'Blobs that may have become unreferenced. Append-only and not unique: a unique queue loses wake-ups.';

CREATE TABLE tombstone (
    storage_key       text PRIMARY KEY,
    blob_id           uuid NOT NULL CONSTRAINT tombstone_blob_is_unique UNIQUE,
    project_id        bigint NOT NULL,
    kind              text NOT NULL,
    digest            text NOT NULL,
    bytes             bigint NOT NULL,
    made_of           uuid[] NOT NULL,
    condemned_at      timestamptz NOT NULL,
    not_final_before  timestamptz NOT NULL,
    next_at           timestamptz NOT NULL,
    attempts          integer NOT NULL DEFAULT 0,
    claim             uuid,
    claimed_until     timestamptz,
    error_class       text CHECK (error_class IN ('unavailable', 'throttled', 'refused')),
    last_error        text
);
COMMENT ON TABLE tombstone IS 'Condemned objects whose removal the store has not finally confirmed. Retried for ever.';
COMMENT ON COLUMN tombstone.not_final_before IS 'Only a removal sent at or after this closes the row: before, a PUT may still land.';
CREATE INDEX tombstone_due ON tombstone (next_at);
CREATE INDEX tombstone_digest ON tombstone (project_id, digest);
CREATE INDEX tombstone_made_of ON tombstone USING gin (made_of) WHERE made_of <> '{}';

CREATE TABLE release (
    deletion_id  uuid NOT NULL REFERENCES deletion,
    blob_id      uuid NOT NULL,
    kind         text NOT NULL,
    digest       text NOT NULL,
    bytes        bigint NOT NULL,
    storage_key  text NOT NULL,
    removed_at   timestamptz,
    PRIMARY KEY (deletion_id, blob_id)
);
COMMENT ON TABLE release IS 'Who let go of what. blob_id outlives the row it names, so it is no foreign key.';
CREATE INDEX release_blob ON release (blob_id);

-- Traces -------------------------------------------------------------------------------------------------------------

CREATE TABLE trace (
    id           uuid PRIMARY KEY,
    trace_id     uuid NOT NULL,
    event        text NOT NULL,
    at           timestamptz NOT NULL,
    facts        jsonb NOT NULL
);
COMMENT ON TABLE trace IS 'Analytics rows, when no other engine keeps them. Never joined with the tables above.';
CREATE INDEX trace_by_id ON trace (trace_id);

CREATE TABLE trace_due (
    id             uuid PRIMARY KEY,
    artifact_id    uuid NOT NULL REFERENCES artifact,
    trace_id       uuid NOT NULL,
    event          text NOT NULL,
    at             timestamptz NOT NULL,
    facts          jsonb NOT NULL,
    claim          uuid,
    claimed_until  timestamptz
);
COMMENT ON TABLE trace_due IS 'Trace rows to be written, announced in the transaction they tell about.';
CREATE INDEX trace_due_artifact ON trace_due (artifact_id);

CREATE TABLE trace_removal (
    deletion_id       uuid NOT NULL REFERENCES deletion,
    trace_id          uuid NOT NULL,
    not_final_before  timestamptz NOT NULL,
    removed_at        timestamptz,
    PRIMARY KEY (deletion_id, trace_id)
);
COMMENT ON COLUMN trace_removal.not_final_before IS 'A writer that claimed the trace may still land until then; only a later empty count is final.';
CREATE INDEX trace_removal_open ON trace_removal (not_final_before) WHERE removed_at IS NULL;

-- Whoever deletes or changes a reference or a pin enqueues the blob, whichever code path it was ------------------------------

CREATE FUNCTION enqueue_snapshot_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, cause) SELECT image_id, 'snapshot_image' FROM gone WHERE image_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER snapshot_image_deleted AFTER DELETE ON snapshot_image
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_snapshot_image();
CREATE TRIGGER snapshot_image_changed AFTER UPDATE ON snapshot_image
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_snapshot_image();

CREATE FUNCTION enqueue_snapshot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, cause) SELECT manifest_id, 'snapshot' FROM gone;
    RETURN NULL;
END $$;
CREATE TRIGGER snapshot_deleted AFTER DELETE ON snapshot
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_snapshot();
CREATE TRIGGER snapshot_changed AFTER UPDATE ON snapshot
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_snapshot();

CREATE FUNCTION enqueue_comparison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, cause) SELECT report_id, 'comparison' FROM gone WHERE report_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER comparison_deleted AFTER DELETE ON comparison
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_comparison();
CREATE TRIGGER comparison_changed AFTER UPDATE ON comparison
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_comparison();

CREATE FUNCTION enqueue_comparison_image() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, cause) SELECT mask_id, 'comparison_image' FROM gone WHERE mask_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER comparison_image_deleted AFTER DELETE ON comparison_image
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_comparison_image();
CREATE TRIGGER comparison_image_changed AFTER UPDATE ON comparison_image
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_comparison_image();

CREATE FUNCTION enqueue_blob_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, cause) SELECT blob_id, TG_TABLE_NAME FROM gone;
    RETURN NULL;
END $$;
CREATE TRIGGER object_deleted AFTER DELETE ON object
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_blob_id();
CREATE TRIGGER object_changed AFTER UPDATE ON object
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_blob_id();
CREATE TRIGGER pin_deleted AFTER DELETE ON pin
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_blob_id();
