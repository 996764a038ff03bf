-- What the registry has decided, as far as counting needs it. `position` is the REGISTRY event that last changed the row.
CREATE TABLE account (
    account text PRIMARY KEY,
    zone    text NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON account TO {role};

CREATE TABLE app (
    client_id     text PRIMARY KEY,
    account       text NOT NULL REFERENCES account,
    services      text[] NOT NULL,
    registered_at timestamptz NOT NULL,
    deleted_at    timestamptz,
    position      bigint NOT NULL
);
CREATE INDEX app_by_position ON app (position);
CREATE INDEX app_by_account ON app (account, client_id);
GRANT SELECT, INSERT, UPDATE ON app TO {role};

-- Usage by application, service and civil window (h hour, d day, m month) of the account's zone. Rows are updated often and never
-- in an indexed column: the room left in each page keeps those updates in it (HOT).
CREATE TABLE counter (
    window_start timestamptz NOT NULL,
    calls        bigint NOT NULL,
    units        bigint NOT NULL,
    late_units   bigint NOT NULL,
    client_id    text   NOT NULL,
    service      text   NOT NULL,
    period       text   NOT NULL CHECK (period IN ('h', 'd', 'm')),
    PRIMARY KEY (client_id, service, period, window_start)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
GRANT SELECT, INSERT, UPDATE ON counter TO {role};

-- How far each publisher's batches are counted, and how the last one was: what recognises a repetition and undoes a retraction.
CREATE TABLE publisher_position (
    publisher   text    NOT NULL,
    partition   integer NOT NULL,
    seq         bigint  NOT NULL,
    retracted   boolean NOT NULL,
    recorded_at timestamptz NOT NULL,
    rejected    integer[] NOT NULL,
    digest      bytea   NOT NULL,
    PRIMARY KEY (publisher, partition)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON publisher_position TO {role};

-- Single events that were counted: key is a digest of (source, id), digest one of the payload.
CREATE TABLE counted_event (
    key         bytea PRIMARY KEY,
    digest      bytea NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX counted_event_by_time ON counted_event USING brin (recorded_at);
GRANT SELECT, INSERT, DELETE ON counted_event TO {role};

CREATE TABLE credential_use (
    client_id    text NOT NULL,
    secret_id    text NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (client_id, secret_id)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE ON credential_use TO {role};

-- How far USAGE is counted, by subject; `told` is how far its dead letters were published, so that counting again publishes none twice.
CREATE TABLE progress (
    subject     text PRIMARY KEY,
    sequence    bigint NOT NULL,
    recorded_at timestamptz,
    told        bigint NOT NULL
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON progress TO {role};

-- Which worker follows which source, until when, by this database's clock. A lease shares out work; what makes it safe is the
-- compare-and-set of the checkpoint.
CREATE TABLE worker (
    worker  text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON worker TO {role};

CREATE TABLE lease (
    source     text PRIMARY KEY,
    worker     text,
    expires_at timestamptz
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON lease TO {role};

-- The last civil day whose beginning was shown on the dashboards, by zone.
CREATE TABLE rollover (
    zone      text PRIMARY KEY,
    day_start timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON rollover TO {role};
