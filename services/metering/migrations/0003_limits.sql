-- Limits as of now, one row for each scope that ever had one: the fold of metering's own log. Null: no limit.
CREATE TABLE app_limit (
    client_id      text NOT NULL,
    service        text NOT NULL,
    account        text NOT NULL,
    version        integer NOT NULL,
    daily          bigint,
    monthly        bigint,
    daily_rungs    integer[] NOT NULL,
    monthly_rungs  integer[] NOT NULL,
    changed_at     timestamptz NOT NULL,
    PRIMARY KEY (client_id, service)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON app_limit TO {role};

CREATE TABLE account_limit (
    account        text NOT NULL,
    service        text NOT NULL,
    version        integer NOT NULL,
    monthly        bigint,
    monthly_rungs  integer[] NOT NULL,
    changed_at     timestamptz NOT NULL,
    PRIMARY KEY (account, service)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON account_limit TO {role};

-- Changes that wait for their time: the fold of the log, too. client_id '' is the account's own limit.
CREATE TABLE limit_schedule (
    schedule_id    text PRIMARY KEY,
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    effective_at   timestamptz NOT NULL,
    daily          bigint,
    monthly        bigint,
    daily_rungs    integer[] NOT NULL,
    monthly_rungs  integer[] NOT NULL,
    reason         text NOT NULL,
    requested_by   text NOT NULL,
    requested_at   timestamptz NOT NULL
);
CREATE INDEX limit_schedule_by_time ON limit_schedule (effective_at);
CREATE INDEX limit_schedule_by_scope ON limit_schedule (account, client_id, service);
GRANT SELECT, INSERT, UPDATE, DELETE ON limit_schedule TO {role};

-- The highest percentage that was told of each version of a limit in each window: the fold of the log, too. client_id '' as above;
-- version 0 is the catalog's test quota.
CREATE TABLE told (
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    period         text NOT NULL CHECK (period IN ('d', 'm')),
    window_start   timestamptz NOT NULL,
    version        integer NOT NULL,
    percent        integer NOT NULL,
    exhausted      boolean NOT NULL,
    PRIMARY KEY (account, client_id, service, period, window_start, version)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE, DELETE ON told TO {role};

-- Windows of limited scopes whose usage or limit has changed: to be looked at for crossings. marked_by tells a mark from a later one
-- of the same window. A mark stays until every transaction that ran when it was first looked at has ended (docs/decisions/0013).
CREATE TABLE limit_mark (
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    period         text NOT NULL CHECK (period IN ('d', 'm')),
    window_start   timestamptz NOT NULL,
    marked_by      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (account, client_id, service, period, window_start)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON limit_mark TO {role};

-- The first refusal for want of units in a window, until the log has it.
CREATE TABLE exhausted_mark (
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    period         text NOT NULL CHECK (period IN ('d', 'm')),
    window_start   timestamptz NOT NULL,
    window_end     timestamptz NOT NULL,
    version        integer NOT NULL,
    used           bigint NOT NULL,
    quota          bigint NOT NULL,
    PRIMARY KEY (account, client_id, service, period, window_start, version)
);
GRANT SELECT, INSERT, DELETE ON exhausted_mark TO {role};

-- Units set aside for one gate, of one application at one service, in one civil day. `counted` has come as records; `stated` is what the
-- gate says it had spent when it returned the lease. Not an event: nobody replays them, and counting again keeps them.
CREATE TABLE quota_lease (
    lease          text PRIMARY KEY,
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    publisher      text NOT NULL,
    subject        text NOT NULL,
    day_start      timestamptz NOT NULL,
    month_start    timestamptz NOT NULL,
    units          bigint NOT NULL CHECK (units > 0),
    counted        bigint NOT NULL DEFAULT 0,
    stated         bigint,
    extensions     integer NOT NULL DEFAULT 0,
    end_sequence   bigint,
    closed_at      timestamptz
) WITH (fillfactor = 70);
CREATE INDEX quota_lease_open ON quota_lease (client_id, service) WHERE closed_at IS NULL;
CREATE INDEX quota_lease_open_of_account ON quota_lease (account, service, month_start) WHERE closed_at IS NULL;
CREATE INDEX quota_lease_closed ON quota_lease (closed_at) WHERE closed_at IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON quota_lease TO {role};

-- Records that came from a lease after it was closed, and so did not count: their places, so that counting again decides the same.
CREATE TABLE lapsed_record (
    subject        text NOT NULL,
    sequence       bigint NOT NULL,
    place          integer NOT NULL,
    PRIMARY KEY (subject, sequence, place)
);
GRANT SELECT, INSERT ON lapsed_record TO {role};

-- Services that still wait for a review: a subset of `services`. The registry's events are read again, for no row tells it yet.
ALTER TABLE app ADD COLUMN test_services text[] NOT NULL DEFAULT '{}';
TRUNCATE app, account;
DELETE FROM checkpoint WHERE consumer = 'metering-registry';
