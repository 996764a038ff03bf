-- The registry's read tables. All of it comes from the events and can be dropped and built again (python -m services.registry --rebuild).

CREATE TABLE account (
    account           text        PRIMARY KEY,
    zone              text        NOT NULL,
    opened_at         timestamptz NOT NULL,
    terms_version     text,
    terms_accepted_at timestamptz,
    CHECK ((terms_version IS NULL) = (terms_accepted_at IS NULL))
);

-- Applications that are not deleted. `registered` is the log position of the registration: the order in which they are listed.
CREATE TABLE app (
    client_id     text        PRIMARY KEY CHECK (client_id ~ '^[a-z0-9]{20}$'),
    account       text        NOT NULL,
    name          text        NOT NULL,
    services      jsonb       NOT NULL,  -- [{"service": "csr", "tier": "live"}]
    environments  jsonb       NOT NULL,  -- {"web": [], "android": [], "ios": []}, reduced
    registered    bigint      NOT NULL UNIQUE,
    registered_at timestamptz NOT NULL,
    edited_at     timestamptz NOT NULL,
    position      bigint      NOT NULL   -- of the last event that shows in this row
);
CREATE INDEX app_by_account ON app (account, registered DESC);

-- Secrets that were not ended; one of them is current, its valid_until is null. The secrets themselves are sealed in the vault.
CREATE TABLE secret (
    client_id   text        NOT NULL,
    secret_id   text        NOT NULL,
    issued_at   timestamptz NOT NULL,
    valid_until timestamptz,
    PRIMARY KEY (client_id, secret_id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON account, app, secret TO {role};
