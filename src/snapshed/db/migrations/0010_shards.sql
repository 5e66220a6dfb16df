-- Several CI jobs, one snapshot: each uploads a part of its images in one session, which the last part commits.

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
