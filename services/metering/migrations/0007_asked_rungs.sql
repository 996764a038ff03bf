-- At which percentages of its limits a scope is to be told of besides the limits' own: what customers ask for at alerts, as ALERTS has
-- it. client_id '' is the account's own limit. `position` is the event of ALERTS that the row is of.
CREATE TABLE rung_asked (
    account        text NOT NULL,
    client_id      text NOT NULL,
    service        text NOT NULL,
    daily          integer[] NOT NULL,
    monthly        integer[] NOT NULL,
    position       bigint NOT NULL,
    PRIMARY KEY (account, client_id, service)
);
GRANT SELECT, INSERT, UPDATE ON rung_asked TO {role};
