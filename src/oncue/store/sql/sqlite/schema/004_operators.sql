-- What operators did, and who they are. Times are microseconds since the epoch.
CREATE TABLE oncue_audit (
  id            INTEGER PRIMARY KEY,
  at            INTEGER NOT NULL,
  who           TEXT    NOT NULL,      -- 'token:NAME', 'cli:USER', 'loopback'
  action        TEXT    NOT NULL,
  target        TEXT    NOT NULL,      -- 'job:17', 'queue:mail', 'task:send', 'jobs' for a filtered many
  count         INTEGER NOT NULL DEFAULT 1,   -- how many it touched
  detail        TEXT    NOT NULL DEFAULT '{}', -- JSON
  request       TEXT                   -- who and their idempotency key, so that a request is done once
) STRICT;
CREATE INDEX oncue_audit_target ON oncue_audit (target, id);
CREATE UNIQUE INDEX oncue_audit_request ON oncue_audit (request) WHERE request IS NOT NULL;

-- Who may use the HTTP API. Of a token only its hash is kept.
CREATE TABLE oncue_token (
  id            INTEGER PRIMARY KEY,
  name          TEXT    NOT NULL UNIQUE,
  roles         TEXT    NOT NULL,      -- JSON: of read, operate, schedule, cron
  hash          TEXT    NOT NULL UNIQUE, -- SHA-256 of the token, in hexadecimal
  created_at    INTEGER NOT NULL,
  expires_at    INTEGER,
  revoked_at    INTEGER
) STRICT;

-- The tasks that are paused: no worker claims their jobs.
CREATE TABLE oncue_task_pause (
  name          TEXT    PRIMARY KEY,
  paused_at     INTEGER NOT NULL,
  who           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- What each worker did of each task in each minute, as that worker counted it.
CREATE TABLE oncue_minute (
  minute        INTEGER NOT NULL,      -- when it began
  worker        INTEGER NOT NULL,
  task          TEXT    NOT NULL,
  started       INTEGER NOT NULL,
  completed     INTEGER NOT NULL,
  retried       INTEGER NOT NULL,
  discarded     INTEGER NOT NULL,
  skipped       INTEGER NOT NULL,
  ran_us        INTEGER NOT NULL,      -- how long handlers ran, all together
  lateness      TEXT    NOT NULL,      -- JSON: upper bounds in microseconds -> how many started that late
  PRIMARY KEY (minute, worker, task)
) STRICT, WITHOUT ROWID;

-- What somebody is told of: since when it lasts, and whether its latest change was told.
CREATE TABLE oncue_alert (
  app           TEXT    NOT NULL,      -- the application whose alert it is
  name          TEXT    NOT NULL,
  since         INTEGER NOT NULL,
  ended_at      INTEGER,               -- NULL while it lasts
  told_at       INTEGER,               -- NULL while its latest change isn't told yet
  busy_until    INTEGER,               -- a process is telling it until then
  tries         INTEGER NOT NULL DEFAULT 0,
  found         TEXT    NOT NULL,
  PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID;
