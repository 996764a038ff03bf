-- Contacts as of now: the fold of alerts' own log, as are all tables down to `notification`. What is personal is in the vault.
CREATE TABLE contact (
    contact_id   text        PRIMARY KEY,
    account      text        NOT NULL,
    vault_id     text        NOT NULL,
    locale       text        NOT NULL,
    zone         text        NOT NULL,
    quiet_start  text,
    quiet_end    text,
    digest_at    text,
    added_at     timestamptz NOT NULL,
    edited_at    timestamptz NOT NULL,
    CHECK ((quiet_start IS NULL) = (quiet_end IS NULL))
);
CREATE INDEX contact_by_account ON contact (account);

-- A row for each address that a contact has. `code_vault_id` and `code_expires_at`: where the code is that can be entered, and
-- until when; null when there is none.
CREATE TABLE contact_method (
    contact_id       text    NOT NULL,
    method           text    NOT NULL CHECK (method IN ('email', 'sms', 'webhook')),
    verified         boolean NOT NULL,
    unsubscribed     boolean NOT NULL,
    code_vault_id    text,
    code_expires_at  timestamptz,
    PRIMARY KEY (contact_id, method),
    CHECK ((code_vault_id IS NULL) = (code_expires_at IS NULL))
);

CREATE TABLE contact_group (
    group_id  text PRIMARY KEY,
    account   text NOT NULL,
    name      text NOT NULL
);
CREATE INDEX contact_group_by_account ON contact_group (account);

CREATE TABLE group_member (
    group_id    text NOT NULL,
    contact_id  text NOT NULL,
    PRIMARY KEY (group_id, contact_id)
);
CREATE INDEX group_member_by_contact ON group_member (contact_id);

-- One row for each scope that ever had a rule. client_id '' is the account's own limit at the service.
CREATE TABLE rule (
    account         text NOT NULL,
    client_id       text NOT NULL,
    service         text NOT NULL,
    version         integer NOT NULL,
    daily           integer,
    monthly         integer,
    daily_custom    integer[] NOT NULL,
    monthly_custom  integer[] NOT NULL,
    changed_at      timestamptz NOT NULL,
    PRIMARY KEY (account, client_id, service)
);

-- Who is told of a scope, in the order in which they were entered. One of the two ids is ''. A contact or group that was removed
-- stays here and in group_member: whoever reads joins what is there.
CREATE TABLE recipient (
    account     text    NOT NULL,
    client_id   text    NOT NULL,
    service     text    NOT NULL,
    place       integer NOT NULL,
    contact_id  text    NOT NULL,
    group_id    text    NOT NULL,
    methods     text[]  NOT NULL,
    PRIMARY KEY (account, client_id, service, place)
);

-- Every message that was asked for. `position` is that of NotificationRequested: the order in which they are listed. `about` is
-- JSON, as the event has it. `urgent`: it is not held back, and does not wait long for company.
CREATE TABLE notification (
    request_id    text        PRIMARY KEY,
    account       text        NOT NULL,
    client_id     text        NOT NULL,
    service       text        NOT NULL,
    app_name      text        NOT NULL,
    contact_id    text        NOT NULL,
    method        text        NOT NULL,
    kind          text        NOT NULL,
    about         text        NOT NULL,
    urgent        boolean     NOT NULL,
    requested_at  timestamptz NOT NULL,
    due_at        timestamptz NOT NULL,
    deadline      timestamptz NOT NULL,
    position      bigint      NOT NULL,
    state         text        NOT NULL CHECK (state IN ('waiting', 'delivered', 'failed')),
    message_id    text,
    attempts      integer     NOT NULL,
    provider_id   text,
    reason        text,
    answer        text        NOT NULL,
    settled_at    timestamptz
);
CREATE INDEX notification_waiting ON notification (contact_id, method, position) WHERE state = 'waiting';
CREATE INDEX notification_due ON notification (due_at) WHERE state = 'waiting';
CREATE INDEX notification_by_scope ON notification (account, client_id, state);
CREATE INDEX notification_by_account ON notification (account, position DESC);
CREATE INDEX notification_by_app ON notification (client_id, position DESC) WHERE client_id <> '';
CREATE INDEX notification_asked_for ON notification (account, requested_at) WHERE kind IN ('verification', 'test');
CREATE INDEX notification_by_contact ON notification (contact_id, position DESC);

-- What the registry said: accounts' zones, and what applications are called and have selected. `position` is in REGISTRY.
CREATE TABLE account (
    account  text PRIMARY KEY,
    zone     text NOT NULL
);
CREATE TABLE app (
    client_id   text    PRIMARY KEY,
    account     text    NOT NULL,
    name        text    NOT NULL,
    services    text[]  NOT NULL,
    deleted     boolean NOT NULL,
    position    bigint  NOT NULL
);
CREATE INDEX app_by_account ON app (account);

-- Messages that are being sent: the delivery worker's own, as is `recent_message`. Each tells one contact by one method what its
-- items ask for; it is made before the first try and gone when all of them are settled. Until `claimed_until`, by this server's
-- clock, only whoever made the claim `claimed_by` tries it.
CREATE TABLE message (
    message_id     text        PRIMARY KEY,
    account        text        NOT NULL,
    contact_id     text        NOT NULL,
    method         text        NOT NULL,
    urgent         boolean     NOT NULL,
    created_at     timestamptz NOT NULL,
    deadline       timestamptz NOT NULL,
    attempts       integer     NOT NULL,
    next_at        timestamptz NOT NULL,
    claimed_by     text        NOT NULL,
    claimed_until  timestamptz,
    answer         text        NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX message_by_time ON message (method, urgent DESC, next_at);
CREATE TABLE message_item (
    request_id  text PRIMARY KEY,
    message_id  text NOT NULL REFERENCES message ON DELETE CASCADE
);
CREATE INDEX message_item_by_message ON message_item (message_id);

-- Whom messages were made for lately: the more, the longer the next one waits for company.
CREATE TABLE recent_message (
    contact_id  text        NOT NULL,
    method      text        NOT NULL,
    made_at     timestamptz NOT NULL
);
CREATE INDEX recent_message_by_contact ON recent_message (contact_id, method, made_at);
CREATE INDEX recent_message_by_time ON recent_message (made_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON contact, contact_method, contact_group, group_member, rule, recipient, notification,
    account, app, message, message_item, recent_message TO {role};
