-- API tokens, projected from TokenIssued and TokenRevoked.
CREATE TABLE token (
    token_id   text        PRIMARY KEY,
    account    text        NOT NULL,
    roles      text[]      NOT NULL,
    label      text        NOT NULL,
    verifier   bytea       NOT NULL CHECK (length(verifier) = 32),  -- SHA-256 of the token
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX token_account ON token (account, issued_at);

-- When each token was last used, to the minute. Observed, not decided: it is no event, and a rebuild leaves it alone.
CREATE TABLE token_use (
    token_id     text        PRIMARY KEY,
    last_used_at timestamptz NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON token TO {role};
GRANT SELECT, INSERT, UPDATE ON token_use TO {role};
