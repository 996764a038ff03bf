-- Counters on shelves: a partition for each month of hours and of days, for each year of months (in UTC, so a civil month can lie on
-- two). Old detail goes by the shelf (docs/decisions/0016).
ALTER TABLE counter RENAME TO counter_before;
ALTER INDEX counter_pkey RENAME TO counter_before_pkey;

CREATE TABLE counter (
    window_start      timestamptz NOT NULL,
    calls             bigint NOT NULL,
    units             bigint NOT NULL,
    late_units        bigint NOT NULL,
    after_close_units bigint NOT NULL DEFAULT 0,
    client_id         text   NOT NULL,
    service           text   NOT NULL,
    period            text   NOT NULL,
    PRIMARY KEY (client_id, service, period, window_start)
) PARTITION BY LIST (period);
CREATE TABLE counter_h PARTITION OF counter FOR VALUES IN ('h') PARTITION BY RANGE (window_start);
CREATE TABLE counter_d PARTITION OF counter FOR VALUES IN ('d') PARTITION BY RANGE (window_start);
CREATE TABLE counter_m PARTITION OF counter FOR VALUES IN ('m') PARTITION BY RANGE (window_start);
GRANT SELECT, INSERT, UPDATE ON counter TO {role};

-- The first instant from which hours and days are kept: always a month's first, in UTC. What is before it is not written again.
CREATE TABLE kept (
    period text PRIMARY KEY CHECK (period IN ('h', 'd')),
    since  timestamptz NOT NULL
);
INSERT INTO kept VALUES ('h', 'epoch'), ('d', 'epoch');
GRANT SELECT ON kept TO {role};

-- The service may make shelves and drop old ones, and no other change of tables: these functions act as the schema's owner.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true);

-- When the shelf ends that begins at `first`.
CREATE FUNCTION shelf_end(of_period text, first timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT (first AT TIME ZONE 'UTC' + CASE of_period WHEN 'm' THEN interval '1 year' ELSE interval '1 month' END) AT TIME ZONE 'UTC'
$$;

-- Have the shelf for windows that begin at `at`, unless they are not kept any more. Rows are updated often and never in an indexed
-- column: the room left in each page keeps those updates in it (HOT).
CREATE FUNCTION make_shelf(of_period text, at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    first timestamptz := date_trunc(CASE of_period WHEN 'm' THEN 'year' ELSE 'month' END, at, 'UTC');
    pattern text := CASE of_period WHEN 'm' THEN 'YYYY' ELSE 'YYYY_MM' END;
    whole text := 'counter_' || of_period;
    shelf text := whole || '_' || to_char(first AT TIME ZONE 'UTC', pattern);
BEGIN
    IF to_regclass(quote_ident(shelf)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- Whoever makes or drops one at the same time comes before or after: what is looked at next is committed. The whole table first,
    -- as whoever empties it locks it.
    LOCK TABLE ONLY counter IN ACCESS SHARE MODE;
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', whole);
    IF to_regclass(quote_ident(shelf)) IS NOT NULL OR first < (SELECT since FROM kept WHERE period = of_period) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE counter INCLUDING DEFAULTS INCLUDING INDEXES)'
        ' WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)', shelf);
    -- Attached rather than made in place: that does not wait for those who read and count.
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', whole, shelf, first, shelf_end(of_period, first));
END $$;

-- Drop the shelf of hours or days that begins at `first`, and let what is kept begin after it. It waits but a moment for those who
-- read and count, because others wait behind it; and it refuses what late records may still come to.
CREATE FUNCTION drop_shelf(of_period text, first timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '300ms' AS $$
DECLARE
    whole text := 'counter_' || of_period;
BEGIN
    IF of_period NOT IN ('h', 'd') OR first <> date_trunc('month', first, 'UTC') OR shelf_end(of_period, first) > now() - interval '36 days'
    THEN
        RAISE EXCEPTION 'the shelf % % is not one that may be dropped', of_period, first;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', whole);
    UPDATE kept SET since = greatest(since, shelf_end(of_period, first)) WHERE period = of_period;
    EXECUTE format('DROP TABLE %I', whole || '_' || to_char(first AT TIME ZONE 'UTC', 'YYYY_MM'));
END $$;

REVOKE ALL ON FUNCTION make_shelf, drop_shelf FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_shelf, drop_shelf TO {role};

-- What there is, moved; and shelves for now, for next month, and for what may come up to 35 days late.
SELECT make_shelf(period, at) FROM (
    SELECT DISTINCT period, date_trunc('month', window_start, 'UTC') AS at FROM counter_before
    UNION SELECT period, date_trunc('month', now(), 'UTC') + months * interval '31 days'
    FROM unnest('{h,d,m}'::text[]) AS period, generate_series(-1, 1) AS months
    UNION SELECT period, now() - interval '36 days' FROM unnest('{h,d,m}'::text[]) AS period) AS needed;
INSERT INTO counter (window_start, calls, units, late_units, after_close_units, client_id, service, period)
SELECT window_start, calls, units, late_units, after_close_units, client_id, service, period FROM counter_before;
DROP TABLE counter_before;
ANALYZE counter;
