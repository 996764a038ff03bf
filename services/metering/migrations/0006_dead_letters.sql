-- Dead letters, as the stream DEADLETTER has them, without their bytes. `record` null: the whole message; `client_id` and `sender` ''
-- where nobody can tell.
CREATE TABLE dead_letter (
    sequence          bigint PRIMARY KEY,
    recorded_at       timestamptz NOT NULL,
    why               text NOT NULL,
    reason            text NOT NULL,
    subject           text NOT NULL,
    original_sequence bigint NOT NULL,
    original_at       timestamptz NOT NULL,
    record            bigint,
    records           bigint NOT NULL,
    size              bigint NOT NULL,
    sender            text NOT NULL,
    client_id         text NOT NULL,
    retry_of          bigint,
    left_out          text NOT NULL
);
CREATE INDEX dead_letter_by_why ON dead_letter (why, sequence);
GRANT SELECT, INSERT ON dead_letter TO {role};

-- What operators decided about them: the fold of metering's own log. A letter that is not here is open.
CREATE TABLE dead_letter_settled (
    sequence   bigint PRIMARY KEY,
    state      text NOT NULL CHECK (state IN ('retried', 'discarded')),
    note       text NOT NULL,
    settled_by text NOT NULL,
    settled_at timestamptz NOT NULL
);
GRANT SELECT, INSERT ON dead_letter_settled TO {role};

-- Those to be retried that were sent; not of the log, so that building that again sends nothing. `usage_sequence` null: it could not be.
CREATE TABLE dead_letter_sent (
    sequence       bigint PRIMARY KEY,
    usage_sequence bigint,
    sent_at        timestamptz NOT NULL
);
GRANT SELECT, INSERT ON dead_letter_sent TO {role};
