-- The general blob API: objects of other use cases than that of snapshots, multipart uploads of them, and the keys whose
-- tokens it accepts.

-- Objects belong to no project: their scopes are plain namespaces. Their blobs do belong to one, so that storage keys,
-- candidates and tombstones are what they are everywhere: to a project of the installation itself, whose number no
-- identity column and whose name no command ever gives out.
INSERT INTO org (id, slug, created_at) OVERRIDING SYSTEM VALUE VALUES (0, '0-objects', now());
INSERT INTO project (id, org_id, slug, created_at) OVERRIDING SYSTEM VALUE VALUES (0, 0, '0-objects', now());

ALTER TABLE object DROP CONSTRAINT object_pkey;
ALTER TABLE object DROP COLUMN project_id;
ALTER TABLE object ADD CONSTRAINT object_pkey PRIMARY KEY (use_case, scopes, key);
ALTER TABLE object ADD COLUMN policy text CHECK (policy IN ('ttl', 'tti'));
ALTER TABLE object ADD COLUMN lifetime interval;
ALTER TABLE object ADD CONSTRAINT object_expires_by_a_policy
    CHECK ((policy IS NULL) = (lifetime IS NULL) AND (policy IS NULL) = (expires_at IS NULL));
COMMENT ON COLUMN object.metadata IS 'The headers that describe the object, as they were sent.';
COMMENT ON COLUMN object.policy IS 'ttl: expires a lifetime after its creation; tti: a lifetime after its last reading. Null: never.';
COMMENT ON COLUMN object.expires_at IS 'From then on nobody can read it; soon afterwards the row goes.';
CREATE INDEX object_expiring ON object (expires_at) WHERE expires_at IS NOT NULL;

-- A row that only expires later than before lets go of nothing.
CREATE FUNCTION enqueue_replaced_object() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO candidate (blob_id, project_id, cause)
    SELECT b.id, b.project_id, 'object' FROM gone g JOIN blob b ON b.id = g.blob_id
     WHERE NOT EXISTS (SELECT FROM come c WHERE c.blob_id = g.blob_id);
    RETURN NULL;
END $$;
DROP TRIGGER object_changed ON object;
CREATE TRIGGER object_changed AFTER UPDATE ON object
    REFERENCING OLD TABLE AS gone NEW TABLE AS come FOR EACH STATEMENT EXECUTE FUNCTION enqueue_replaced_object();

-- Multipart uploads: a session each, whose stored pins are the parts. They end like every session.
ALTER TABLE pin ADD COLUMN part integer CHECK (part >= 1);
COMMENT ON COLUMN pin.part IS 'The place of a stored part in its multipart upload.';
CREATE UNIQUE INDEX pin_part_is_unique ON pin (session_id, part) WHERE part IS NOT NULL;

CREATE TABLE multipart (
    session_id   uuid PRIMARY KEY REFERENCES session,
    use_case     text NOT NULL,
    scopes       text NOT NULL,
    key          text NOT NULL,
    metadata     jsonb NOT NULL,
    policy       text CHECK (policy IN ('ttl', 'tti')),
    lifetime     interval,
    CONSTRAINT multipart_expires_by_a_policy CHECK ((policy IS NULL) = (lifetime IS NULL))
);
COMMENT ON TABLE multipart IS 'What a multipart upload is to become. The session''s id is the upload''s.';

CREATE TABLE registered_key (
    kid          text PRIMARY KEY,
    public_pem   text NOT NULL,
    scopes       text[] NOT NULL CHECK (scopes <> '{}'),
    permissions  text[] NOT NULL
                 CHECK (permissions <> '{}' AND permissions <@ ARRAY['object.read', 'object.write', 'object.delete']),
    created_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
COMMENT ON TABLE registered_key IS 'Public keys of others: whoever has the private half may sign tokens of the blob API.';
COMMENT ON COLUMN registered_key.scopes IS 'Patterns; a token of the key works only where one of them matches.';
