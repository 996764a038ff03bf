-- The event log. Event N of this table is message N of the service's stream; nobody changes or removes one, not even by mistake.

CREATE TABLE event (
    position    bigint      PRIMARY KEY CHECK (position > 0),
    stream      text        NOT NULL CHECK (stream <> '' AND stream !~ '[[:cntrl:]]'),
    version     integer     NOT NULL CHECK (version > 0),
    type        text        NOT NULL CHECK (type <> '' AND type !~ '[[:cntrl:]]'),
    schema      integer     NOT NULL CHECK (schema > 0),
    data        json        NOT NULL,  -- json, not jsonb: the text as it was written, for the hash is over its bytes
    meta        json        NOT NULL,
    recorded_at timestamptz NOT NULL,
    hash        bytea       NOT NULL CHECK (length(hash) = 32),
    UNIQUE (stream, version)
);

-- The end of the log. Its row lock is what makes positions gapless and visible in order.
CREATE TABLE log_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint  NOT NULL CHECK (position >= 0),
    hash     bytea   NOT NULL CHECK (length(hash) = 32)
);
INSERT INTO log_head (position, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- Every accepted command with its first reply, so that a repetition gives that reply and appends nothing.
CREATE TABLE command (
    account     text        NOT NULL,
    command_id  text        NOT NULL,
    fingerprint bytea       NOT NULL,
    reply       bytea,                 -- sealed; null once it may no longer be shown
    reveals     text,                  -- the vault id of the secret that the reply shows
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (account, command_id)
);
CREATE INDEX command_reveals ON command (reveals) WHERE reveals IS NOT NULL AND reply IS NOT NULL;

-- What is secret or personal, sealed with AES-256-GCM. Deleting a row forgets it; events only know its id.
CREATE TABLE vault (
    id     text  PRIMARY KEY,
    sealed bytea NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'Append a new event that corrects the old one.';
END $$;
CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER event_is_not_emptied BEFORE TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER log_head_is_not_emptied BEFORE DELETE ON log_head FOR EACH ROW EXECUTE FUNCTION refuse_change();

GRANT SELECT, INSERT ON event TO {role};
GRANT SELECT, UPDATE ON log_head TO {role};
GRANT SELECT, INSERT, UPDATE (reply) ON command TO {role};
GRANT SELECT, INSERT, DELETE ON vault TO {role};
