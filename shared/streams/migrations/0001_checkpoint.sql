-- How far each consumer of foreign streams has come. `subject` is '' for a whole stream. Moved by compare-and-set in the
-- transaction that writes what the messages caused, so effects are exactly once.
CREATE TABLE checkpoint (
    consumer text   NOT NULL,
    stream   text   NOT NULL,
    subject  text   NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    hash     bytea  NOT NULL,
    PRIMARY KEY (consumer, stream, subject)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON checkpoint TO {role};

-- Keys of KV buckets whose value has changed since it was last written there. The token tells a change from a later one.
CREATE SEQUENCE kv_dirty_token;
CREATE TABLE kv_dirty (
    bucket text   NOT NULL,
    key    text   NOT NULL,
    token  bigint NOT NULL DEFAULT nextval('kv_dirty_token'),
    PRIMARY KEY (bucket, key)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON kv_dirty TO {role};
GRANT USAGE ON SEQUENCE kv_dirty_token TO {role};

-- Which incarnation of a bucket the values were written to: another one means that all of them must be written again.
CREATE TABLE kv_bucket (
    bucket      text PRIMARY KEY,
    incarnation text NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON kv_bucket TO {role};
