-- Several CI jobs, one snapshot: each uploads a part of its images in one session, which the last part commits. And webhooks.

ALTER TABLE session
    ADD COLUMN group_key text,
    ADD COLUMN shards integer CHECK (shards BETWEEN 1 AND 1000),
    ADD CONSTRAINT session_group_has_a_size CHECK ((group_key IS NULL) = (shards IS NULL));
COMMENT ON COLUMN session.group_key IS 'What the jobs of one token call the snapshot they make together.';
CREATE UNIQUE INDEX session_group_is_open_once ON session (project_id, principal, group_key)
    WHERE state = 'open' AND group_key IS NOT NULL;
CREATE INDEX session_group ON session (project_id, group_key, opened_at DESC) WHERE group_key IS NOT NULL;

CREATE TABLE shard (
    session_id    uuid NOT NULL REFERENCES session,
    number        integer NOT NULL CHECK (number BETWEEN 1 AND 1000),
    request_hash  text NOT NULL,
    body          bytea,
    arrived_at    timestamptz NOT NULL,
    PRIMARY KEY (session_id, number)
);
COMMENT ON TABLE shard IS 'A part of a manifest that waits for the others. Its images are what its session pins, so it names no blob itself.';
COMMENT ON COLUMN shard.body IS 'Null once the session has ended: then the snapshot says it, or nobody may any more.';

-- Webhooks ---------------------------------------------------------------------------------------------------------------

CREATE TABLE webhook (
    id           uuid PRIMARY KEY,
    project_id   bigint NOT NULL REFERENCES project,
    url          text NOT NULL,
    secret       text NOT NULL,
    events       text[] NOT NULL
                 CHECK (events <@ ARRAY['comparison.finished', 'review.decided', 'deletion.completed'] AND events <> '{}'),
    created_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
COMMENT ON COLUMN webhook.secret IS 'In clear, because it signs; shown once, when it is made.';
CREATE INDEX webhook_project ON webhook (project_id) WHERE revoked_at IS NULL;

CREATE TABLE webhook_delivery (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    webhook_id     uuid NOT NULL REFERENCES webhook,
    event          text NOT NULL,
    body           text NOT NULL,
    created_at     timestamptz NOT NULL,
    next_at        timestamptz NOT NULL,
    attempts       integer NOT NULL DEFAULT 0,
    claim          uuid,
    claimed_until  timestamptz
);
COMMENT ON TABLE webhook_delivery IS 'What is still to be told, written in the transaction it tells about; gone once the receiver has taken it.';
COMMENT ON COLUMN webhook_delivery.body IS 'Numbers and states, never content: it may outlive the snapshot it speaks of.';
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, next_at);
