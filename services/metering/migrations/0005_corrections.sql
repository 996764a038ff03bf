-- What is counted for a single event now, so that it can be corrected: its UsageRecord in msgpack, the quantity -1 once it was taken
-- back. One column, for a row is written for every event. Null for a correction itself, and for events that were
-- counted by releases before this one: those cannot be corrected.
ALTER TABLE counted_event ADD COLUMN record bytea;
GRANT UPDATE (record) ON counted_event TO {role};

-- The part of `units` that came by corrections; below zero where they took more than they gave.
ALTER TABLE counter ADD COLUMN corrected_units bigint NOT NULL DEFAULT 0;

-- Only what was counted is ever taken back. Not a CHECK: that would look at the row that ON CONFLICT only adds to the one that is there.
CREATE FUNCTION refuse_below_zero() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a counter would fall below zero: % of % at %', NEW.client_id, NEW.service, NEW.window_start
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER counter_is_never_below_zero AFTER INSERT OR UPDATE ON counter FOR EACH ROW
    WHEN (NEW.units < 0 OR NEW.calls < 0 OR NEW.late_units < 0) EXECUTE FUNCTION refuse_below_zero();

-- Every correction that took effect, by its place in USAGE. Quantities are null where the record does not count at all; hour, day and
-- month say whether the counter of that window changed: the others had closed, and stay.
CREATE TABLE correction (
    sequence     bigint PRIMARY KEY,
    client_id    text NOT NULL,
    service      text NOT NULL,
    occurred_at  timestamptz NOT NULL,
    counted_at   timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    old_quantity bigint,
    new_quantity bigint,
    source       text NOT NULL,
    record_id    text NOT NULL,
    reason       text NOT NULL,
    hour         boolean NOT NULL,
    day          boolean NOT NULL,
    month        boolean NOT NULL
);
CREATE INDEX correction_by_app ON correction (client_id, sequence);
GRANT SELECT, INSERT ON correction TO {role};
