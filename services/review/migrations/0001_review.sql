-- Applications for service apps as lists show them: the fold of review's own log, as are `tuned_task` and `form`. What an applicant
-- wrote is in the vault; an application as a whole is read from its stream. `model` and `task` are '' until they are chosen,
-- `amends` and `superseded_by` where there is none. `drafted` is the log position of its beginning, the order in which applicants
-- list them. Columns `seen_` are what reviewers see, who know submitted revisions only: null until there is one.
CREATE TABLE application (
    review_id      text        PRIMARY KEY,
    account        text        NOT NULL,
    client_id      text        NOT NULL,
    service        text        NOT NULL,
    state          text        NOT NULL,
    revision       integer     NOT NULL,
    model          text        NOT NULL,
    task           text        NOT NULL,
    vault_id       text        NOT NULL,  -- where the present revision is sealed
    amends         text        NOT NULL,
    superseded_by  text        NOT NULL,
    drafted        bigint      NOT NULL UNIQUE,
    drafted_at     timestamptz NOT NULL,
    edited_at      timestamptz NOT NULL,
    submitted_at   timestamptz,
    due_at         timestamptz,
    decided_at     timestamptz,
    seen_state     text,
    seen_revision  integer,
    seen_model     text,
    seen_task      text,
    seen_submitted_at timestamptz,
    seen_due_at    timestamptz,
    claimed_by     text,
    claimed_at     timestamptz,
    approvals      integer     NOT NULL,
    due_soon       boolean     NOT NULL,  -- it was said of the submitted revision that it is due soon
    position       bigint      NOT NULL,  -- of the last event that shows in this row
    CHECK ((seen_state IS NULL) = (seen_revision IS NULL)),
    CHECK ((claimed_by IS NULL) = (claimed_at IS NULL))
);
CREATE INDEX application_by_account ON application (account, drafted DESC);
CREATE INDEX application_by_app ON application (client_id, service, drafted DESC);
CREATE INDEX application_queue ON application (seen_due_at, drafted) WHERE seen_state IN ('submitted', 'in_review');
CREATE INDEX application_seen ON application (seen_state, seen_due_at, drafted) WHERE seen_state IS NOT NULL;

-- Tasks of models that accounts have tuned and can choose.
CREATE TABLE tuned_task (
    task_id   text        PRIMARY KEY,
    account   text        NOT NULL,
    name      text        NOT NULL,
    model     text        NOT NULL,
    task      text        NOT NULL,
    saved_at  timestamptz NOT NULL
);
CREATE INDEX tuned_task_by_account ON tuned_task (account, saved_at);

-- Every version of the form that applications were ever made with. `definition` is JSON, whose SHA-256 is `form_hash`.
CREATE TABLE form (
    form_version  text        PRIMARY KEY,
    definition    text        NOT NULL,
    form_hash     text        NOT NULL,
    published_at  timestamptz NOT NULL
);

-- What the registry said: applications, and the services that they have or had selected, one row for each time. `began`, `position`:
-- in REGISTRY. `reviewed`: it began in tier test; then it tests until `live_at`. `gone_at`: since when it is not selected any more.
CREATE TABLE app (
    client_id  text    PRIMARY KEY,
    account    text    NOT NULL,
    name       text    NOT NULL,
    deleted    boolean NOT NULL,
    position   bigint  NOT NULL
);
CREATE INDEX app_by_account ON app (account);
CREATE TABLE app_service (
    client_id  text        NOT NULL,
    service    text        NOT NULL,
    began      bigint      NOT NULL,
    reviewed   boolean     NOT NULL,
    since      timestamptz NOT NULL,
    live_at    timestamptz,
    gone_at    timestamptz,
    PRIMARY KEY (client_id, service, began)
);
CREATE UNIQUE INDEX app_service_selected ON app_service (client_id, service) WHERE gone_at IS NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON application, tuned_task, form, app, app_service TO {role};
