-- Rules by which old snapshots are deleted, when they were last carried out, and holds of whole branches.

-- An installation that had snapshots before it had rules deletes nothing by rule until somebody says so.
ALTER TABLE installation ADD COLUMN retention_paused_for text CHECK (retention_paused_for <> '');
COMMENT ON COLUMN installation.retention_paused_for IS 'Why no rule deletes anything until somebody confirms it; null: rules work.';
UPDATE installation SET retention_paused_for = 'These snapshots are older than the rules.'
 WHERE EXISTS (SELECT FROM artifact);

CREATE TABLE retention_rule (
    project_id        bigint PRIMARY KEY REFERENCES project,
    version           integer NOT NULL CHECK (version >= 1),
    superseded_days   integer CHECK (superseded_days BETWEEN 1 AND 36500),
    quiet_days        integer CHECK (quiet_days BETWEEN 1 AND 36500),
    default_days      integer CHECK (default_days BETWEEN 1 AND 36500),
    default_branches  text[] NOT NULL CHECK (cardinality(default_branches) <= 20),
    set_by            text NOT NULL,
    set_at            timestamptz NOT NULL,
    noted_at          timestamptz
);
COMMENT ON TABLE retention_rule IS 'What somebody has set; a project without a row follows the defaults. Null days: for ever.';
COMMENT ON COLUMN retention_rule.version IS 'Part of the name of its note in the store, so that a late writer never covers a newer rule.';
COMMENT ON COLUMN retention_rule.noted_at IS 'When the store was given this version; null: not yet.';
CREATE INDEX retention_rule_unnoted ON retention_rule (set_at) WHERE noted_at IS NULL;

CREATE TABLE retention_run (
    project_id        bigint PRIMARY KEY REFERENCES project,
    due_at            timestamptz NOT NULL,
    started_at        timestamptz,
    finished_at       timestamptz,
    deleted           integer NOT NULL DEFAULT 0,
    failed            integer NOT NULL DEFAULT 0,
    kept              integer NOT NULL DEFAULT 0,
    left_over         integer NOT NULL DEFAULT 0,
    deleted_in_all    bigint NOT NULL DEFAULT 0,
    failed_in_all     bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE retention_run IS 'When each project''s rule is due again, and what its last run did. A run in progress is due when its time is over.';
CREATE INDEX retention_run_due ON retention_run (due_at);

CREATE TABLE branch_hold (
    id            uuid PRIMARY KEY,
    project_id    bigint NOT NULL REFERENCES project,
    branch        text NOT NULL CHECK (branch <> ''),
    reason        text NOT NULL CHECK (reason <> ''),
    placed_by     text NOT NULL,
    placed_at     timestamptz NOT NULL,
    ends_at       timestamptz,
    released_by   text,
    released_at   timestamptz,
    noted_at      timestamptz,
    CONSTRAINT branch_hold_is_released_by_somebody CHECK ((released_by IS NULL) = (released_at IS NULL))
);
COMMENT ON TABLE branch_hold IS 'While it stands, nobody and no rule can delete any artifact of the branch, whenever it was made.';
COMMENT ON COLUMN branch_hold.noted_at IS 'When the store was told what the row says now; null: not yet.';
CREATE INDEX branch_hold_standing ON branch_hold (project_id, branch) WHERE released_at IS NULL;
CREATE INDEX branch_hold_unnoted ON branch_hold (placed_at) WHERE noted_at IS NULL;

-- What is asked about every snapshot of a project at once.
CREATE INDEX snapshot_image_withdrawn ON snapshot_image (artifact_id) WHERE withdrawn_by IS NOT NULL;

-- How long removals and deletions take, for the metrics.
ALTER TABLE removal_count ADD COLUMN seconds double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN removal_count.seconds IS 'How long those objects were condemned before the store confirmed that they are gone, in all.';
CREATE INDEX deletion_completed ON deletion (completed_at) WHERE completed_at IS NOT NULL;
