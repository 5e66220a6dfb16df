-- What the migrations leave, for reading. Why it is so stands in src/snapshed/db/migrations.

CREATE FUNCTION public.enqueue_blob_id() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, TG_TABLE_NAME FROM gone g JOIN blob b ON b.id = g.blob_id;
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_build() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'build' FROM gone g JOIN blob b ON b.id IN (g.file_id, g.manifest_id);
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_comparison() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'comparison' FROM gone g JOIN blob b ON b.id = g.report_id;
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_comparison_image() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'comparison_image'
      FROM (SELECT DISTINCT mask_id FROM gone WHERE mask_id IS NOT NULL) g JOIN blob b ON b.id = g.mask_id;
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_replaced_object() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'object' FROM gone g JOIN blob b ON b.id = g.blob_id
     WHERE NOT EXISTS (SELECT FROM come c WHERE c.blob_id = g.blob_id);
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_snapshot() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'snapshot' FROM gone g JOIN blob b ON b.id = g.manifest_id;
    RETURN NULL;
END $$;

CREATE FUNCTION public.enqueue_snapshot_image() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'snapshot_image'
      FROM (SELECT DISTINCT image_id FROM gone WHERE image_id IS NOT NULL) g JOIN blob b ON b.id = g.image_id;
    RETURN NULL;
END $$;

CREATE TABLE public.approval (
    id bigint NOT NULL,
    artifact_id uuid NOT NULL,
    decision text NOT NULL,
    actor text NOT NULL,
    decided_at timestamp with time zone NOT NULL,
    door text,
    by_images boolean DEFAULT false NOT NULL,
    undone_at timestamp with time zone,
    undone_by text,
    CONSTRAINT approval_decision_check CHECK ((decision = ANY (ARRAY['approved'::text, 'rejected'::text]))),
    CONSTRAINT approval_door_check CHECK ((door = ANY (ARRAY['page'::text, 'api'::text, 'rule'::text]))),
    CONSTRAINT approval_is_undone_by_somebody CHECK (((undone_at IS NULL) = (undone_by IS NULL)))
);

COMMENT ON COLUMN public.approval.door IS 'How it was decided: on a page, through the API, or by the rule that repeats an approval. Null: by an earlier release.';

COMMENT ON COLUMN public.approval.by_images IS 'True: it follows from the decisions about every image, and goes when they change.';

ALTER TABLE public.approval ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.approval_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE public.artifact_number
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.artifact (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    number bigint DEFAULT nextval('public.artifact_number'::regclass) NOT NULL,
    kind text NOT NULL,
    app_id text NOT NULL,
    deletion_id uuid,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT artifact_kind_check CHECK ((kind = ANY (ARRAY['snapshot'::text, 'build'::text])))
);

COMMENT ON COLUMN public.artifact.deletion_id IS 'Set: the artifact is marked; nothing reads, promises, names or compares it any more.';

CREATE TABLE public.blob (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    kind text NOT NULL,
    digest text NOT NULL,
    size bigint NOT NULL,
    storage_key text NOT NULL,
    state text NOT NULL,
    put_deadline timestamp with time zone,
    session_id uuid,
    comparison_id uuid,
    made_of uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    announced_at timestamp with time zone NOT NULL,
    artifact_id uuid,
    lost_at timestamp with time zone,
    CONSTRAINT blob_digest_check CHECK ((digest ~ '^[0-9a-f]{64}$'::text)),
    CONSTRAINT blob_kind_check CHECK ((kind = ANY (ARRAY['image'::text, 'manifest'::text, 'comparison'::text, 'mask'::text, 'thumbnail'::text, 'archive'::text, 'file'::text]))),
    CONSTRAINT blob_live_has_no_owner CHECK (((state = 'pending'::text) OR (num_nonnulls(session_id, comparison_id, artifact_id) = 0))),
    CONSTRAINT blob_lost_was_live CHECK (((lost_at IS NULL) OR (state = 'live'::text))),
    CONSTRAINT blob_pending_has_owner_and_deadline CHECK (((state = 'live'::text) OR ((put_deadline IS NOT NULL) AND (num_nonnulls(session_id, comparison_id, artifact_id) = 1)))),
    CONSTRAINT blob_size_check CHECK ((size >= 0)),
    CONSTRAINT blob_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'live'::text])))
);

COMMENT ON TABLE public.blob IS 'One stored object, from before its first byte. A condemned one is moved to tombstone and can never be named again.';

COMMENT ON COLUMN public.blob.put_deadline IS 'Until when a PUT of this key may still land; null once every attempt is answered.';

COMMENT ON COLUMN public.blob.made_of IS 'The artifacts a derived object was computed from; their deletion releases it.';

COMMENT ON COLUMN public.blob.lost_at IS 'Since when the store is known not to have these bytes: nobody may read, promise or name the row, which keeps its references until an upload replaces it.';

CREATE TABLE public.build (
    artifact_id uuid NOT NULL,
    file_id uuid NOT NULL,
    manifest_id uuid NOT NULL,
    file_name text NOT NULL,
    size bigint NOT NULL,
    digest text NOT NULL,
    head_sha text,
    head_repo_name text,
    head_ref text,
    facts jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_by text NOT NULL,
    CONSTRAINT build_size_check CHECK ((size >= 0))
);

COMMENT ON TABLE public.build IS 'One uploaded file with its metadata: an app, an archive, anything. Deleted like every artifact.';

COMMENT ON COLUMN public.build.facts IS 'What the uploader said about the file, as JSON.';

CREATE TABLE public.comparison (
    id uuid NOT NULL,
    head_id uuid NOT NULL,
    base_id uuid NOT NULL,
    state text DEFAULT 'waiting'::text NOT NULL,
    report_id uuid,
    counts jsonb,
    algorithm text,
    error text,
    attempts integer DEFAULT 0 NOT NULL,
    claim uuid,
    claimed_until timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    passed_over jsonb DEFAULT '[]'::jsonb NOT NULL,
    ancestors bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    CONSTRAINT comparison_is_done_with_a_report CHECK (((state = 'done'::text) = (report_id IS NOT NULL))),
    CONSTRAINT comparison_state_check CHECK ((state = ANY (ARRAY['waiting'::text, 'running'::text, 'done'::text, 'failed'::text])))
);

COMMENT ON COLUMN public.comparison.passed_over IS 'Snapshots of the base commit that were not chosen: number and reason, newest first.';

COMMENT ON COLUMN public.comparison.ancestors IS 'Numbers of the snapshots from which a partial base took what it does not hold, nearest first. No byte of theirs is kept for it.';

CREATE TABLE public.comparison_image (
    comparison_id uuid NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    head_digest text,
    base_digest text,
    previous_name text,
    changed_pixels bigint,
    total_pixels bigint,
    threshold double precision,
    head_width integer,
    head_height integer,
    base_width integer,
    base_height integer,
    reason text,
    detail text,
    mask_id uuid,
    threshold_from text,
    regions integer[],
    fingerprint text,
    explanation text,
    moved_by integer,
    CONSTRAINT comparison_image_category_check CHECK ((category = ANY (ARRAY['added'::text, 'removed'::text, 'changed'::text, 'unchanged'::text, 'renamed'::text, 'skipped'::text, 'errored'::text]))),
    CONSTRAINT comparison_image_explanation_check CHECK ((explanation = ANY (ARRAY['identical'::text, 'imperceptible'::text, 'antialiasing'::text, 'moved'::text]))),
    CONSTRAINT comparison_image_threshold_from_check CHECK ((threshold_from = ANY (ARRAY['image'::text, 'manifest'::text, 'default'::text])))
);

COMMENT ON TABLE public.comparison_image IS 'Every decoded pair and every name that is not unchanged.';

COMMENT ON COLUMN public.comparison_image.mask_id IS 'May be named by several rows: the same two images, compared for several snapshots.';

COMMENT ON COLUMN public.comparison_image.threshold_from IS 'Whose threshold is in force: the image''s own, its manifest''s, or none was given.';

COMMENT ON COLUMN public.comparison_image.regions IS 'Boxes around what changed, each left, top, width and height in pixels of the canvas.';

COMMENT ON COLUMN public.comparison_image.fingerprint IS 'The same for the same change, on whatever image and at whatever place.';

COMMENT ON COLUMN public.comparison_image.moved_by IS 'Rows that the content moved, down if positive, where moving explains the difference.';

CREATE TABLE public.object (
    use_case text NOT NULL,
    scopes text NOT NULL,
    key text NOT NULL,
    blob_id uuid NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    policy text,
    lifetime interval,
    CONSTRAINT object_expires_by_a_policy CHECK ((((policy IS NULL) = (lifetime IS NULL)) AND ((policy IS NULL) = (expires_at IS NULL)))),
    CONSTRAINT object_policy_check CHECK ((policy = ANY (ARRAY['ttl'::text, 'tti'::text])))
);

COMMENT ON TABLE public.object IS 'A pointer of the general blob API: a caller''s key and the blob it names now.';

COMMENT ON COLUMN public.object.metadata IS 'The headers that describe the object, as they were sent.';

COMMENT ON COLUMN public.object.expires_at IS 'From then on nobody can read it; soon afterwards the row goes.';

COMMENT ON COLUMN public.object.policy IS 'ttl: expires a lifetime after its creation; tti: a lifetime after its last reading. Null: never.';

CREATE TABLE public.snapshot (
    artifact_id uuid NOT NULL,
    manifest_id uuid NOT NULL,
    image_count integer NOT NULL,
    selective boolean NOT NULL,
    all_names text[],
    diff_threshold double precision,
    head_sha text,
    base_sha text,
    provider text,
    head_repo_name text,
    base_repo_name text,
    head_ref text,
    base_ref text,
    pr_number integer,
    created_by text NOT NULL,
    lost_base bigint,
    CONSTRAINT snapshot_diff_threshold_check CHECK (((diff_threshold >= (0)::double precision) AND (diff_threshold < (1)::double precision)))
);

COMMENT ON COLUMN public.snapshot.lost_base IS 'The number of the base this was compared with, once that base was deleted.';

CREATE TABLE public.snapshot_image (
    artifact_id uuid NOT NULL,
    name text NOT NULL,
    image_id uuid,
    digest text NOT NULL,
    width integer NOT NULL,
    height integer NOT NULL,
    diff_threshold double precision,
    facts jsonb DEFAULT '{}'::jsonb NOT NULL,
    withdrawn_by uuid,
    CONSTRAINT snapshot_image_has_bytes_unless_withdrawn CHECK (((image_id IS NOT NULL) OR (withdrawn_by IS NOT NULL)))
);

COMMENT ON COLUMN public.snapshot_image.facts IS 'What the uploader said about the image besides its size: display name, group, tags and the like.';

CREATE VIEW public.blob_reference AS
 SELECT snapshot_image.image_id AS blob_id
   FROM public.snapshot_image
  WHERE (snapshot_image.image_id IS NOT NULL)
UNION ALL
 SELECT snapshot.manifest_id AS blob_id
   FROM public.snapshot
UNION ALL
 SELECT comparison.report_id AS blob_id
   FROM public.comparison
  WHERE (comparison.report_id IS NOT NULL)
UNION ALL
 SELECT comparison_image.mask_id AS blob_id
   FROM public.comparison_image
  WHERE (comparison_image.mask_id IS NOT NULL)
UNION ALL
 SELECT object.blob_id
   FROM public.object
UNION ALL
 SELECT build.file_id AS blob_id
   FROM public.build
UNION ALL
 SELECT build.manifest_id AS blob_id
   FROM public.build;

COMMENT ON VIEW public.blob_reference IS 'Whatever keeps bytes: every reference, of marked artifacts and withdrawn images too.';

CREATE TABLE public.branch_hold (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    branch text NOT NULL,
    reason text NOT NULL,
    placed_by text NOT NULL,
    placed_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone,
    released_by text,
    released_at timestamp with time zone,
    noted_at timestamp with time zone,
    CONSTRAINT branch_hold_branch_check CHECK ((branch <> ''::text)),
    CONSTRAINT branch_hold_is_released_by_somebody CHECK (((released_by IS NULL) = (released_at IS NULL))),
    CONSTRAINT branch_hold_reason_check CHECK ((reason <> ''::text))
);

COMMENT ON TABLE public.branch_hold IS 'While it stands, nobody and no rule can delete any artifact of the branch, whenever it was made.';

COMMENT ON COLUMN public.branch_hold.noted_at IS 'When the store was told what the row says now; null: not yet.';

CREATE TABLE public.candidate (
    seq bigint NOT NULL,
    blob_id uuid NOT NULL,
    cause text NOT NULL,
    project_id bigint NOT NULL,
    queued_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE public.candidate IS 'Blobs that may have become unreferenced. Append-only and not unique: a unique queue loses wake-ups.';

COMMENT ON COLUMN public.candidate.project_id IS 'So that one project''s million candidates delay no other project''s ten.';

COMMENT ON COLUMN public.candidate.queued_at IS 'For people only: a candidate that nobody takes means that no worker runs.';

ALTER TABLE public.candidate ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.candidate_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.deletion (
    id uuid NOT NULL,
    org_id bigint NOT NULL,
    project_id bigint,
    target jsonb NOT NULL,
    requested_by text NOT NULL,
    reason text,
    urgent boolean DEFAULT false NOT NULL,
    request_id text,
    state text DEFAULT 'removing'::text NOT NULL,
    snapshots bigint[] NOT NULL,
    artifacts uuid[] NOT NULL,
    rows json NOT NULL,
    requested_at timestamp with time zone NOT NULL,
    journaled_at timestamp with time zone,
    completed_at timestamp with time zone,
    verified_at timestamp with time zone,
    receipt json,
    receipt_journaled_at timestamp with time zone,
    seq bigint NOT NULL,
    recovered boolean DEFAULT false NOT NULL,
    CONSTRAINT deletion_completes_journaled CHECK (((state = 'removing'::text) OR (journaled_at IS NOT NULL))),
    CONSTRAINT deletion_is_complete_with_a_receipt CHECK ((((state = 'complete'::text) = (receipt IS NOT NULL)) AND ((state = 'complete'::text) = (completed_at IS NOT NULL)))),
    CONSTRAINT deletion_state_check CHECK ((state = ANY (ARRAY['removing'::text, 'complete'::text])))
);

COMMENT ON COLUMN public.deletion.receipt IS 'As signed, in the order of its fields: json, not jsonb.';

COMMENT ON COLUMN public.deletion.seq IS 'Counts deletions, so that the mark of the installation rises with each.';

COMMENT ON COLUMN public.deletion.recovered IS 'Taken from the store''s journal: what it had let go of before is not known, so its receipt cannot be counted after.';

ALTER TABLE public.deletion ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.deletion_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.hold (
    id uuid NOT NULL,
    artifact_id uuid NOT NULL,
    reason text NOT NULL,
    placed_by text NOT NULL,
    placed_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone,
    CONSTRAINT hold_reason_check CHECK ((reason <> ''::text))
);

COMMENT ON TABLE public.hold IS 'While it stands, nobody and no rule can delete the artifact. Its manifest carries it too.';

CREATE TABLE public.image_decision (
    id bigint NOT NULL,
    artifact_id uuid NOT NULL,
    batch uuid NOT NULL,
    name text NOT NULL,
    category text NOT NULL,
    head_digest text,
    base_digest text,
    decision text NOT NULL,
    actor text NOT NULL,
    door text NOT NULL,
    since bigint,
    decided_at timestamp with time zone NOT NULL,
    undone_at timestamp with time zone,
    undone_by text,
    CONSTRAINT image_decision_category_check CHECK ((category = ANY (ARRAY['added'::text, 'removed'::text, 'changed'::text, 'renamed'::text, 'errored'::text]))),
    CONSTRAINT image_decision_decision_check CHECK ((decision = ANY (ARRAY['approved'::text, 'rejected'::text]))),
    CONSTRAINT image_decision_door_check CHECK ((door = ANY (ARRAY['page'::text, 'api'::text]))),
    CONSTRAINT image_decision_is_undone_by_somebody CHECK (((undone_at IS NULL) = (undone_by IS NULL)))
);

COMMENT ON TABLE public.image_decision IS 'What people decided about one difference of a snapshot. Only ever added to, or taken back.';

COMMENT ON COLUMN public.image_decision.batch IS 'Decisions taken, and taken back, together: a group of images that change alike.';

COMMENT ON COLUMN public.image_decision.category IS 'What was decided about, with both digests: a comparison with other images asks again.';

COMMENT ON COLUMN public.image_decision.since IS 'The decision about the whole snapshot that stood then; a later one is the newer word about every image.';

ALTER TABLE public.image_decision ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.image_decision_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.installation (
    only_one boolean DEFAULT true NOT NULL,
    id uuid NOT NULL,
    epoch integer NOT NULL,
    protocol integer NOT NULL,
    address text,
    created_at timestamp with time zone NOT NULL,
    store_keeps text DEFAULT 'unknown'::text NOT NULL,
    retention_paused_for text,
    recovering boolean DEFAULT false NOT NULL,
    mark bigint DEFAULT 0 NOT NULL,
    marked_at_state text DEFAULT ''::text NOT NULL,
    CONSTRAINT installation_epoch_check CHECK ((epoch >= 1)),
    CONSTRAINT installation_is_one CHECK (only_one),
    CONSTRAINT installation_retention_paused_for_check CHECK ((retention_paused_for <> ''::text)),
    CONSTRAINT installation_store_keeps_is_known CHECK ((store_keeps = ANY (ARRAY['nothing'::text, 'versions'::text, 'unknown'::text])))
);

COMMENT ON COLUMN public.installation.epoch IS 'Raised by every rebuild; part of every storage key, so that no key is ever issued twice.';

COMMENT ON COLUMN public.installation.protocol IS 'A worker of another protocol number refuses to work on this database.';

COMMENT ON COLUMN public.installation.address IS 'Where serve last answered; new tokens carry it.';

COMMENT ON COLUMN public.installation.store_keeps IS 'What the store keeps of removed objects, as far as the last probe could see; receipts say it.';

COMMENT ON COLUMN public.installation.retention_paused_for IS 'Why no rule deletes anything until somebody confirms it; null: rules work.';

COMMENT ON COLUMN public.installation.recovering IS 'A rebuild has begun and not ended: nobody else may open this database.';

COMMENT ON COLUMN public.installation.mark IS 'Rises while anything happens, here first and then in the store: a store that knows a higher one has lived longer than this database.';

COMMENT ON COLUMN public.installation.marked_at_state IS 'What the mark stood for when it last rose.';

CREATE VIEW public.live_reference AS
 SELECT i.image_id AS blob_id
   FROM public.snapshot_image i,
    LATERAL ( SELECT
           FROM public.artifact a_1
          WHERE ((a_1.id = i.artifact_id) AND (a_1.deletion_id IS NULL))
         OFFSET 0) a
  WHERE ((i.image_id IS NOT NULL) AND (i.withdrawn_by IS NULL))
UNION ALL
 SELECT s.manifest_id AS blob_id
   FROM (public.snapshot s
     JOIN public.artifact a ON ((a.id = s.artifact_id)))
  WHERE (a.deletion_id IS NULL)
UNION ALL
 SELECT c.report_id AS blob_id
   FROM ((public.comparison c
     JOIN public.artifact h ON ((h.id = c.head_id)))
     JOIN public.artifact b ON ((b.id = c.base_id)))
  WHERE ((c.report_id IS NOT NULL) AND (h.deletion_id IS NULL) AND (b.deletion_id IS NULL))
UNION ALL
 SELECT i.mask_id AS blob_id
   FROM (((public.comparison_image i
     JOIN public.comparison c ON ((c.id = i.comparison_id)))
     JOIN public.artifact h ON ((h.id = c.head_id)))
     JOIN public.artifact b ON ((b.id = c.base_id)))
  WHERE ((i.mask_id IS NOT NULL) AND (h.deletion_id IS NULL) AND (b.deletion_id IS NULL))
UNION ALL
 SELECT object.blob_id
   FROM public.object
UNION ALL
 SELECT d.file_id AS blob_id
   FROM (public.build d
     JOIN public.artifact a ON ((a.id = d.artifact_id)))
  WHERE (a.deletion_id IS NULL)
UNION ALL
 SELECT d.manifest_id AS blob_id
   FROM (public.build d
     JOIN public.artifact a ON ((a.id = d.artifact_id)))
  WHERE (a.deletion_id IS NULL);

COMMENT ON VIEW public.live_reference IS 'Whatever lets somebody read, promise or name a blob: references of unmarked artifacts only.';

CREATE TABLE public.migration (
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.multipart (
    session_id uuid NOT NULL,
    use_case text NOT NULL,
    scopes text NOT NULL,
    key text NOT NULL,
    metadata jsonb NOT NULL,
    policy text,
    lifetime interval,
    CONSTRAINT multipart_expires_by_a_policy CHECK (((policy IS NULL) = (lifetime IS NULL))),
    CONSTRAINT multipart_policy_check CHECK ((policy = ANY (ARRAY['ttl'::text, 'tti'::text])))
);

COMMENT ON TABLE public.multipart IS 'What a multipart upload is to become. The session''s id is the upload''s.';

CREATE TABLE public.org (
    id bigint NOT NULL,
    slug text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT org_slug_check CHECK ((slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text))
);

ALTER TABLE public.org ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.org_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.pin (
    session_id uuid NOT NULL,
    blob_id uuid NOT NULL,
    how text NOT NULL,
    part integer,
    CONSTRAINT pin_how_check CHECK ((how = ANY (ARRAY['told'::text, 'stored'::text]))),
    CONSTRAINT pin_part_check CHECK ((part >= 1))
);

COMMENT ON COLUMN public.pin.part IS 'The place of a stored part in its multipart upload.';

CREATE TABLE public.project (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    slug text NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    named_at timestamp with time zone,
    CONSTRAINT project_slug_check CHECK ((slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text)),
    CONSTRAINT project_state_check CHECK ((state = ANY (ARRAY['active'::text, 'deleting'::text])))
);

COMMENT ON COLUMN public.project.named_at IS 'When its name was written into the store, for a rebuild. Null: still to be written.';

ALTER TABLE public.project ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.project_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.registered_key (
    kid text NOT NULL,
    public_pem text NOT NULL,
    scopes text[] NOT NULL,
    permissions text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT registered_key_permissions_check CHECK (((permissions <> '{}'::text[]) AND (permissions <@ ARRAY['object.read'::text, 'object.write'::text, 'object.delete'::text]))),
    CONSTRAINT registered_key_scopes_check CHECK ((scopes <> '{}'::text[]))
);

COMMENT ON TABLE public.registered_key IS 'Public keys of others: whoever has the private half may sign tokens of the blob API.';

COMMENT ON COLUMN public.registered_key.scopes IS 'Patterns; a token of the key works only where one of them matches.';

CREATE TABLE public.release (
    deletion_id uuid NOT NULL,
    blob_id uuid NOT NULL,
    kind text NOT NULL,
    digest text NOT NULL,
    bytes bigint NOT NULL,
    storage_key text NOT NULL,
    removed_at timestamp with time zone,
    returned integer DEFAULT 0 NOT NULL
);

COMMENT ON TABLE public.release IS 'Who let go of what. blob_id outlives the row it names, so it is no foreign key.';

COMMENT ON COLUMN public.release.returned IS 'How often the store said that the object was removed and had it when it was asked again.';

CREATE TABLE public.removal_count (
    outcome text NOT NULL,
    objects bigint NOT NULL,
    bytes bigint NOT NULL,
    seconds double precision DEFAULT 0 NOT NULL,
    CONSTRAINT removal_count_outcome_check CHECK ((outcome = ANY (ARRAY['removed'::text, 'unavailable'::text, 'throttled'::text, 'refused'::text])))
);

COMMENT ON TABLE public.removal_count IS 'Removals since the beginning, by what the store answered, for the metrics. One row an outcome.';

COMMENT ON COLUMN public.removal_count.seconds IS 'How long those objects were condemned before the store confirmed that they are gone, in all.';

CREATE TABLE public.retention_rule (
    project_id bigint NOT NULL,
    version integer NOT NULL,
    superseded_days integer,
    quiet_days integer,
    default_days integer,
    default_branches text[] NOT NULL,
    set_by text NOT NULL,
    set_at timestamp with time zone NOT NULL,
    noted_at timestamp with time zone,
    CONSTRAINT retention_rule_default_branches_check CHECK ((cardinality(default_branches) <= 20)),
    CONSTRAINT retention_rule_default_days_check CHECK (((default_days >= 1) AND (default_days <= 36500))),
    CONSTRAINT retention_rule_quiet_days_check CHECK (((quiet_days >= 1) AND (quiet_days <= 36500))),
    CONSTRAINT retention_rule_superseded_days_check CHECK (((superseded_days >= 1) AND (superseded_days <= 36500))),
    CONSTRAINT retention_rule_version_check CHECK ((version >= 1))
);

COMMENT ON TABLE public.retention_rule IS 'What somebody has set; a project without a row follows the defaults. Null days: for ever.';

COMMENT ON COLUMN public.retention_rule.version IS 'Part of the name of its note in the store, so that a late writer never covers a newer rule.';

COMMENT ON COLUMN public.retention_rule.noted_at IS 'When the store was given this version; null: not yet.';

CREATE TABLE public.retention_run (
    project_id bigint NOT NULL,
    due_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    deleted integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    kept integer DEFAULT 0 NOT NULL,
    left_over integer DEFAULT 0 NOT NULL,
    deleted_in_all bigint DEFAULT 0 NOT NULL,
    failed_in_all bigint DEFAULT 0 NOT NULL
);

COMMENT ON TABLE public.retention_run IS 'When each project''s rule is due again, and what its last run did. A run in progress is due when its time is over.';

CREATE TABLE public.session (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    principal text NOT NULL,
    artifact_id uuid NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    request_hash text,
    number bigint,
    committed_at timestamp with time zone,
    cancelled_by uuid,
    group_key text,
    shards integer,
    CONSTRAINT session_group_has_a_size CHECK (((group_key IS NULL) = (shards IS NULL))),
    CONSTRAINT session_remembers_its_commit CHECK ((((state = 'committed'::text) = (number IS NOT NULL)) AND ((state = 'committed'::text) = (committed_at IS NOT NULL)))),
    CONSTRAINT session_shards_check CHECK (((shards >= 1) AND (shards <= 1000))),
    CONSTRAINT session_state_check CHECK ((state = ANY (ARRAY['open'::text, 'committed'::text, 'expired'::text, 'cancelled'::text])))
);

COMMENT ON COLUMN public.session.artifact_id IS 'Minted with the session, so every attempt of its create writes for the same artifact.';

COMMENT ON COLUMN public.session.cancelled_by IS 'The urgent deletion that ended this upload; its receipt says so.';

COMMENT ON COLUMN public.session.group_key IS 'What the jobs of one token call the snapshot they make together.';

CREATE TABLE public.shard (
    session_id uuid NOT NULL,
    number integer NOT NULL,
    request_hash text NOT NULL,
    body bytea,
    arrived_at timestamp with time zone NOT NULL,
    CONSTRAINT shard_number_check CHECK (((number >= 1) AND (number <= 1000)))
);

COMMENT ON TABLE public.shard IS 'A part of a manifest that waits for the others. Its images are what its session pins, so it names no blob itself.';

COMMENT ON COLUMN public.shard.body IS 'Null once the session has ended: then the snapshot says it, or nobody may any more.';

CREATE TABLE public.sign_in (
    hash bytea NOT NULL,
    token_id bigint NOT NULL,
    kind text NOT NULL,
    csrf text NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    CONSTRAINT sign_in_kind_check CHECK ((kind = ANY (ARRAY['once'::text, 'browser'::text])))
);

COMMENT ON TABLE public.sign_in IS 'A browser''s session, or an address that signs a person in once.';

CREATE TABLE public.signing_key (
    kid text NOT NULL,
    purpose text NOT NULL,
    private_pem text,
    public_pem text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT signing_key_purpose_check CHECK ((purpose = ANY (ARRAY['receipt'::text, 'upload'::text])))
);

COMMENT ON COLUMN public.signing_key.private_pem IS 'Null where only the public half has outlived a lost database.';

CREATE TABLE public.token (
    id bigint NOT NULL,
    org_id bigint NOT NULL,
    project_id bigint,
    name text NOT NULL,
    scopes text[] NOT NULL,
    hash bytea NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT token_scopes_check CHECK ((scopes <@ ARRAY['read'::text, 'upload'::text, 'review'::text, 'delete'::text, 'admin'::text]))
);

COMMENT ON COLUMN public.token.project_id IS 'Null: every project of the organization.';

COMMENT ON COLUMN public.token.hash IS 'SHA-256 of the whole token; the token itself is never stored.';

ALTER TABLE public.token ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.token_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.tombstone (
    storage_key text NOT NULL,
    blob_id uuid NOT NULL,
    project_id bigint NOT NULL,
    kind text NOT NULL,
    digest text NOT NULL,
    bytes bigint NOT NULL,
    made_of uuid[] NOT NULL,
    condemned_at timestamp with time zone NOT NULL,
    not_final_before timestamp with time zone NOT NULL,
    next_at timestamp with time zone NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    claim uuid,
    claimed_until timestamp with time zone,
    error_class text,
    last_error text,
    CONSTRAINT tombstone_error_class_check CHECK ((error_class = ANY (ARRAY['unavailable'::text, 'throttled'::text, 'refused'::text])))
)
WITH (fillfactor='50');

COMMENT ON TABLE public.tombstone IS 'Condemned objects whose removal the store has not finally confirmed. Retried for ever.';

COMMENT ON COLUMN public.tombstone.not_final_before IS 'Only a removal sent at or after this closes the row: before, a PUT may still land.';

CREATE TABLE public.trace (
    id uuid NOT NULL,
    trace_id uuid NOT NULL,
    event text NOT NULL,
    at timestamp with time zone NOT NULL,
    facts jsonb NOT NULL
);

COMMENT ON TABLE public.trace IS 'Analytics rows, when no other engine keeps them. Never joined with the tables above.';

CREATE TABLE public.trace_due (
    id uuid NOT NULL,
    artifact_id uuid NOT NULL,
    trace_id uuid NOT NULL,
    event text NOT NULL,
    at timestamp with time zone NOT NULL,
    facts jsonb NOT NULL,
    claim uuid,
    claimed_until timestamp with time zone
);

COMMENT ON TABLE public.trace_due IS 'Trace rows to be written, announced in the transaction they tell about.';

CREATE TABLE public.trace_removal (
    deletion_id uuid NOT NULL,
    trace_id uuid NOT NULL,
    not_final_before timestamp with time zone NOT NULL,
    removed_at timestamp with time zone
);

COMMENT ON COLUMN public.trace_removal.not_final_before IS 'A writer that claimed the trace may still land until then; only a later empty count is final.';

CREATE TABLE public.webhook (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    events text[] NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT webhook_events_check CHECK (((events <@ ARRAY['comparison.finished'::text, 'review.decided'::text, 'deletion.completed'::text]) AND (events <> '{}'::text[])))
);

COMMENT ON COLUMN public.webhook.secret IS 'In clear, because it signs; shown once, when it is made.';

CREATE TABLE public.webhook_delivery (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    webhook_id uuid NOT NULL,
    event text NOT NULL,
    body text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    next_at timestamp with time zone NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    claim uuid,
    claimed_until timestamp with time zone
);

COMMENT ON TABLE public.webhook_delivery IS 'What is still to be told, written in the transaction it tells about; gone once the receiver has taken it.';

COMMENT ON COLUMN public.webhook_delivery.body IS 'Numbers and states, never content: it may outlive the snapshot it speaks of.';

ALTER TABLE ONLY public.approval
    ADD CONSTRAINT approval_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_number_is_unique UNIQUE (number);

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_storage_key_is_unique UNIQUE (storage_key);

ALTER TABLE ONLY public.branch_hold
    ADD CONSTRAINT branch_hold_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.build
    ADD CONSTRAINT build_pkey PRIMARY KEY (artifact_id);

ALTER TABLE ONLY public.candidate
    ADD CONSTRAINT candidate_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY public.comparison_image
    ADD CONSTRAINT comparison_image_pkey PRIMARY KEY (comparison_id, name);

ALTER TABLE ONLY public.comparison
    ADD CONSTRAINT comparison_pair_is_unique UNIQUE (head_id, base_id);

ALTER TABLE ONLY public.comparison
    ADD CONSTRAINT comparison_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.deletion
    ADD CONSTRAINT deletion_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.image_decision
    ADD CONSTRAINT image_decision_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (only_one);

ALTER TABLE ONLY public.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.multipart
    ADD CONSTRAINT multipart_pkey PRIMARY KEY (session_id);

ALTER TABLE ONLY public.object
    ADD CONSTRAINT object_pkey PRIMARY KEY (use_case, scopes, key);

ALTER TABLE ONLY public.org
    ADD CONSTRAINT org_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.org
    ADD CONSTRAINT org_slug_is_unique UNIQUE (slug);

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_pkey PRIMARY KEY (session_id, blob_id);

ALTER TABLE ONLY public.project
    ADD CONSTRAINT project_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.project
    ADD CONSTRAINT project_slug_is_unique UNIQUE (org_id, slug);

ALTER TABLE ONLY public.registered_key
    ADD CONSTRAINT registered_key_pkey PRIMARY KEY (kid);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_pkey PRIMARY KEY (deletion_id, blob_id);

ALTER TABLE ONLY public.removal_count
    ADD CONSTRAINT removal_count_pkey PRIMARY KEY (outcome);

ALTER TABLE ONLY public.retention_rule
    ADD CONSTRAINT retention_rule_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY public.retention_run
    ADD CONSTRAINT retention_run_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_artifact_is_unique UNIQUE (artifact_id);

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.shard
    ADD CONSTRAINT shard_pkey PRIMARY KEY (session_id, number);

ALTER TABLE ONLY public.sign_in
    ADD CONSTRAINT sign_in_pkey PRIMARY KEY (hash);

ALTER TABLE ONLY public.signing_key
    ADD CONSTRAINT signing_key_pkey PRIMARY KEY (kid);

ALTER TABLE ONLY public.snapshot_image
    ADD CONSTRAINT snapshot_image_pkey PRIMARY KEY (artifact_id, name);

ALTER TABLE ONLY public.snapshot
    ADD CONSTRAINT snapshot_pkey PRIMARY KEY (artifact_id);

ALTER TABLE ONLY public.token
    ADD CONSTRAINT token_hash_is_unique UNIQUE (hash);

ALTER TABLE ONLY public.token
    ADD CONSTRAINT token_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tombstone
    ADD CONSTRAINT tombstone_blob_is_unique UNIQUE (blob_id);

ALTER TABLE ONLY public.tombstone
    ADD CONSTRAINT tombstone_pkey PRIMARY KEY (storage_key);

ALTER TABLE ONLY public.trace_due
    ADD CONSTRAINT trace_due_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.trace
    ADD CONSTRAINT trace_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.trace_removal
    ADD CONSTRAINT trace_removal_pkey PRIMARY KEY (deletion_id, trace_id);

ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT webhook_delivery_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (id);

CREATE INDEX approval_artifact ON public.approval USING btree (artifact_id, id DESC);

CREATE INDEX artifact_marked ON public.artifact USING btree (deletion_id) WHERE (deletion_id IS NOT NULL);

CREATE INDEX artifact_project ON public.artifact USING btree (project_id, created_at DESC, number DESC);

CREATE INDEX blob_artifact ON public.blob USING btree (artifact_id) WHERE (artifact_id IS NOT NULL);

CREATE INDEX blob_comparison ON public.blob USING btree (comparison_id) WHERE (comparison_id IS NOT NULL);

CREATE UNIQUE INDEX blob_image_is_unique ON public.blob USING btree (project_id, digest, (
CASE
    WHEN (lost_at IS NOT NULL) THEN id
    ELSE NULL::uuid
END)) NULLS NOT DISTINCT WHERE ((state = 'live'::text) AND (kind = 'image'::text));

CREATE INDEX blob_lost ON public.blob USING btree (id) WHERE (lost_at IS NOT NULL);

CREATE INDEX blob_made_of ON public.blob USING gin (made_of) WHERE (made_of <> '{}'::uuid[]);

CREATE INDEX blob_session ON public.blob USING btree (session_id) WHERE (session_id IS NOT NULL);

CREATE INDEX branch_hold_standing ON public.branch_hold USING btree (project_id, branch) WHERE (released_at IS NULL);

CREATE INDEX branch_hold_unnoted ON public.branch_hold USING btree (placed_at) WHERE (noted_at IS NULL);

CREATE INDEX build_file ON public.build USING btree (file_id);

CREATE INDEX build_manifest ON public.build USING btree (manifest_id);

CREATE INDEX candidate_turn ON public.candidate USING btree (project_id, seq);

CREATE INDEX comparison_base ON public.comparison USING btree (base_id);

CREATE INDEX comparison_image_base_digest ON public.comparison_image USING btree (base_digest) WHERE (mask_id IS NOT NULL);

CREATE INDEX comparison_image_decoded ON public.comparison_image USING btree (head_digest, base_digest) WHERE (total_pixels IS NOT NULL);

CREATE INDEX comparison_image_head_digest ON public.comparison_image USING btree (head_digest) WHERE (mask_id IS NOT NULL);

CREATE INDEX comparison_image_mask ON public.comparison_image USING btree (mask_id) WHERE (mask_id IS NOT NULL);

CREATE INDEX comparison_report ON public.comparison USING btree (report_id) WHERE (report_id IS NOT NULL);

CREATE INDEX comparison_unfinished ON public.comparison USING btree (created_at) WHERE (state = ANY (ARRAY['waiting'::text, 'running'::text]));

CREATE INDEX deletion_completed ON public.deletion USING btree (completed_at) WHERE (completed_at IS NOT NULL);

CREATE INDEX deletion_open ON public.deletion USING btree (requested_at) WHERE (state = 'removing'::text);

CREATE UNIQUE INDEX deletion_request_is_unique ON public.deletion USING btree (org_id, request_id) WHERE (request_id IS NOT NULL);

CREATE INDEX deletion_snapshots ON public.deletion USING gin (snapshots);

CREATE INDEX hold_artifact ON public.hold USING btree (artifact_id);

CREATE INDEX image_decision_batch ON public.image_decision USING btree (batch);

CREATE INDEX image_decision_newest ON public.image_decision USING btree (artifact_id, name, id DESC);

CREATE INDEX object_blob ON public.object USING btree (blob_id);

CREATE INDEX object_expiring ON public.object USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX pin_blob ON public.pin USING btree (blob_id);

CREATE UNIQUE INDEX pin_part_is_unique ON public.pin USING btree (session_id, part) WHERE (part IS NOT NULL);

CREATE INDEX release_blob ON public.release USING btree (blob_id);

CREATE INDEX retention_rule_unnoted ON public.retention_rule USING btree (set_at) WHERE (noted_at IS NULL);

CREATE INDEX retention_run_due ON public.retention_run USING btree (due_at);

CREATE INDEX session_cancelled ON public.session USING btree (cancelled_by) WHERE (cancelled_by IS NOT NULL);

CREATE INDEX session_group ON public.session USING btree (project_id, group_key, opened_at DESC) WHERE (group_key IS NOT NULL);

CREATE UNIQUE INDEX session_group_is_open_once ON public.session USING btree (project_id, principal, group_key) WHERE ((state = 'open'::text) AND (group_key IS NOT NULL));

CREATE INDEX session_open ON public.session USING btree (ends_at) WHERE (state = 'open'::text);

CREATE INDEX session_project_open ON public.session USING btree (project_id) WHERE (state = 'open'::text);

CREATE INDEX session_requests ON public.session USING btree (project_id, request_hash) WHERE (state = 'committed'::text);

CREATE INDEX snapshot_base_commit ON public.snapshot USING btree (base_sha, base_repo_name);

CREATE INDEX snapshot_head_commit ON public.snapshot USING btree (head_sha, head_repo_name);

CREATE INDEX snapshot_image_blob ON public.snapshot_image USING btree (image_id) WHERE (image_id IS NOT NULL);

CREATE INDEX snapshot_image_withdrawn ON public.snapshot_image USING btree (artifact_id) WHERE (withdrawn_by IS NOT NULL);

CREATE INDEX snapshot_manifest ON public.snapshot USING btree (manifest_id);

CREATE INDEX tombstone_digest ON public.tombstone USING btree (project_id, digest);

CREATE INDEX tombstone_due ON public.tombstone USING btree (next_at);

CREATE INDEX tombstone_made_of ON public.tombstone USING gin (made_of) WHERE (made_of <> '{}'::uuid[]);

CREATE INDEX trace_by_id ON public.trace USING btree (trace_id);

CREATE INDEX trace_due_artifact ON public.trace_due USING btree (artifact_id);

CREATE INDEX trace_removal_open ON public.trace_removal USING btree (not_final_before) WHERE (removed_at IS NULL);

CREATE INDEX webhook_delivery_due ON public.webhook_delivery USING btree (webhook_id, next_at);

CREATE INDEX webhook_project ON public.webhook USING btree (project_id) WHERE (revoked_at IS NULL);

CREATE TRIGGER build_changed AFTER UPDATE ON public.build REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_build();

CREATE TRIGGER build_deleted AFTER DELETE ON public.build REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_build();

CREATE TRIGGER comparison_changed AFTER UPDATE ON public.comparison REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_comparison();

CREATE TRIGGER comparison_deleted AFTER DELETE ON public.comparison REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_comparison();

CREATE TRIGGER comparison_image_changed AFTER UPDATE ON public.comparison_image REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_comparison_image();

CREATE TRIGGER comparison_image_deleted AFTER DELETE ON public.comparison_image REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_comparison_image();

CREATE TRIGGER object_changed AFTER UPDATE ON public.object REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_replaced_object();

CREATE TRIGGER object_deleted AFTER DELETE ON public.object REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_blob_id();

CREATE TRIGGER pin_deleted AFTER DELETE ON public.pin REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_blob_id();

CREATE TRIGGER snapshot_changed AFTER UPDATE ON public.snapshot REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_snapshot();

CREATE TRIGGER snapshot_deleted AFTER DELETE ON public.snapshot REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_snapshot();

CREATE TRIGGER snapshot_image_changed AFTER UPDATE ON public.snapshot_image REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_snapshot_image();

CREATE TRIGGER snapshot_image_deleted AFTER DELETE ON public.snapshot_image REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION public.enqueue_snapshot_image();

ALTER TABLE ONLY public.approval
    ADD CONSTRAINT approval_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_deletion_id_fkey FOREIGN KEY (deletion_id) REFERENCES public.deletion(id);

ALTER TABLE ONLY public.artifact
    ADD CONSTRAINT artifact_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_comparison_id_fkey FOREIGN KEY (comparison_id) REFERENCES public.comparison(id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.blob
    ADD CONSTRAINT blob_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.session(id);

ALTER TABLE ONLY public.branch_hold
    ADD CONSTRAINT branch_hold_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.build
    ADD CONSTRAINT build_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.build
    ADD CONSTRAINT build_file_is_a_blob FOREIGN KEY (file_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.build
    ADD CONSTRAINT build_manifest_is_a_blob FOREIGN KEY (manifest_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.comparison
    ADD CONSTRAINT comparison_base_id_fkey FOREIGN KEY (base_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.comparison
    ADD CONSTRAINT comparison_head_id_fkey FOREIGN KEY (head_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.comparison_image
    ADD CONSTRAINT comparison_image_comparison_id_fkey FOREIGN KEY (comparison_id) REFERENCES public.comparison(id);

ALTER TABLE ONLY public.comparison_image
    ADD CONSTRAINT comparison_image_mask_is_a_blob FOREIGN KEY (mask_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.comparison
    ADD CONSTRAINT comparison_report_is_a_blob FOREIGN KEY (report_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.deletion
    ADD CONSTRAINT deletion_org_id_fkey FOREIGN KEY (org_id) REFERENCES public.org(id);

ALTER TABLE ONLY public.deletion
    ADD CONSTRAINT deletion_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.image_decision
    ADD CONSTRAINT image_decision_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.multipart
    ADD CONSTRAINT multipart_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.session(id);

ALTER TABLE ONLY public.object
    ADD CONSTRAINT object_is_a_blob FOREIGN KEY (blob_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_blob_is_a_blob FOREIGN KEY (blob_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.pin
    ADD CONSTRAINT pin_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.session(id);

ALTER TABLE ONLY public.project
    ADD CONSTRAINT project_org_id_fkey FOREIGN KEY (org_id) REFERENCES public.org(id);

ALTER TABLE ONLY public.release
    ADD CONSTRAINT release_deletion_id_fkey FOREIGN KEY (deletion_id) REFERENCES public.deletion(id);

ALTER TABLE ONLY public.retention_rule
    ADD CONSTRAINT retention_rule_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.retention_run
    ADD CONSTRAINT retention_run_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_cancelled_by_fkey FOREIGN KEY (cancelled_by) REFERENCES public.deletion(id);

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.shard
    ADD CONSTRAINT shard_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.session(id);

ALTER TABLE ONLY public.sign_in
    ADD CONSTRAINT sign_in_token_id_fkey FOREIGN KEY (token_id) REFERENCES public.token(id);

ALTER TABLE ONLY public.snapshot
    ADD CONSTRAINT snapshot_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.snapshot_image
    ADD CONSTRAINT snapshot_image_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.snapshot(artifact_id);

ALTER TABLE ONLY public.snapshot_image
    ADD CONSTRAINT snapshot_image_is_a_blob FOREIGN KEY (image_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.snapshot_image
    ADD CONSTRAINT snapshot_image_withdrawn_by_fkey FOREIGN KEY (withdrawn_by) REFERENCES public.deletion(id);

ALTER TABLE ONLY public.snapshot
    ADD CONSTRAINT snapshot_manifest_is_a_blob FOREIGN KEY (manifest_id) REFERENCES public.blob(id) ON DELETE RESTRICT;

ALTER TABLE ONLY public.token
    ADD CONSTRAINT token_org_id_fkey FOREIGN KEY (org_id) REFERENCES public.org(id);

ALTER TABLE ONLY public.token
    ADD CONSTRAINT token_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);

ALTER TABLE ONLY public.trace_due
    ADD CONSTRAINT trace_due_artifact_id_fkey FOREIGN KEY (artifact_id) REFERENCES public.artifact(id);

ALTER TABLE ONLY public.trace_removal
    ADD CONSTRAINT trace_removal_deletion_id_fkey FOREIGN KEY (deletion_id) REFERENCES public.deletion(id);

ALTER TABLE ONLY public.webhook_delivery
    ADD CONSTRAINT webhook_delivery_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES public.webhook(id);

ALTER TABLE ONLY public.webhook
    ADD CONSTRAINT webhook_project_id_fkey FOREIGN KEY (project_id) REFERENCES public.project(id);
