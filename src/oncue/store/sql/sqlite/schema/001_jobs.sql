-- One row per job that is not final: the truth about what will run, and when. Times are microseconds since the epoch.
CREATE TABLE oncue_job (
  id            INTEGER PRIMARY KEY,
  task          TEXT    NOT NULL,
  args          TEXT    NOT NULL,
  queue         TEXT    NOT NULL,
  priority      INTEGER NOT NULL CHECK (priority BETWEEN -100 AND 100),
  state         TEXT    NOT NULL DEFAULT 'scheduled' CHECK (state IN ('scheduled', 'running')),
  scheduled_at  INTEGER NOT NULL,
  eligible_at   INTEGER,               -- NULL while blocked
  blocked_by    TEXT,                  -- 'key:...', 'group:...', 'cap:...', 'restore'; 'limit:...' with an eligible_at
  attempt       INTEGER NOT NULL DEFAULT 0,
  snoozes       INTEGER NOT NULL DEFAULT 0,
  max_attempts  INTEGER NOT NULL,
  worker        INTEGER,
  claimed_at    INTEGER,
  holds         INTEGER NOT NULL DEFAULT 0,
  cancel        INTEGER NOT NULL DEFAULT 0,
  key           TEXT,
  group_name    TEXT,
  max_late      INTEGER,
  when_late     TEXT    NOT NULL DEFAULT 'run' CHECK (when_late IN ('run', 'skip', 'fail')),
  when_blocked  TEXT    NOT NULL DEFAULT 'wait' CHECK (when_blocked IN ('wait', 'skip')),
  metadata      TEXT,
  origin        TEXT,                  -- 'cron:NAME', 'source:NAME'
  origin_ref    TEXT,                  -- the nominal time, or the row's key and due value
  folded        INTEGER NOT NULL DEFAULT 0,
  progress      TEXT,
  created_at    INTEGER NOT NULL,
  CHECK ((state = 'running') = (worker IS NOT NULL)),
  CHECK (state = 'scheduled' OR attempt > 0),
  CHECK (holds = 0 OR group_name IS NOT NULL),
  CHECK (state = 'running' OR eligible_at IS NOT NULL OR blocked_by IS NOT NULL)
) STRICT;
CREATE INDEX oncue_job_eligible ON oncue_job (queue, priority, eligible_at, id)
  WHERE state = 'scheduled' AND eligible_at IS NOT NULL;
CREATE INDEX oncue_job_running ON oncue_job (worker) WHERE state = 'running';
CREATE INDEX oncue_job_blocked ON oncue_job (blocked_by, scheduled_at, id) WHERE blocked_by IS NOT NULL;
CREATE INDEX oncue_job_lane ON oncue_job (group_name, scheduled_at, id)
  WHERE group_name IS NOT NULL AND state = 'scheduled' AND holds = 0;
CREATE UNIQUE INDEX oncue_job_key_waiting ON oncue_job (key) WHERE key IS NOT NULL AND attempt = 0;
CREATE UNIQUE INDEX oncue_job_key_started ON oncue_job (key) WHERE key IS NOT NULL AND attempt > 0;
CREATE UNIQUE INDEX oncue_job_group_holder ON oncue_job (group_name) WHERE holds = 1;
CREATE UNIQUE INDEX oncue_job_origin ON oncue_job (origin, origin_ref) WHERE origin IS NOT NULL;

-- A job in its final state, with its last attempt.
CREATE TABLE oncue_finished (
  id            INTEGER PRIMARY KEY,
  task          TEXT    NOT NULL,
  args          TEXT    NOT NULL,
  queue         TEXT    NOT NULL,
  priority      INTEGER NOT NULL,
  state         TEXT    NOT NULL CHECK (state IN ('completed', 'discarded', 'cancelled')),
  outcome       TEXT    NOT NULL,
  scheduled_at  INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  snoozes       INTEGER NOT NULL,
  max_attempts  INTEGER NOT NULL,
  worker        INTEGER,
  started_at    INTEGER,
  finished_at   INTEGER NOT NULL,
  key           TEXT,
  group_name    TEXT,
  max_late      INTEGER,
  when_late     TEXT    NOT NULL,
  metadata      TEXT,
  origin        TEXT,
  origin_ref    TEXT,
  folded        INTEGER NOT NULL,
  progress      TEXT,
  created_at    INTEGER NOT NULL,
  result        TEXT,
  error         TEXT,
  traceback     TEXT,
  reason        TEXT,
  expires_at    INTEGER
) STRICT;
CREATE INDEX oncue_finished_expires ON oncue_finished (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX oncue_finished_key ON oncue_finished (key) WHERE key IS NOT NULL;
CREATE INDEX oncue_finished_discarded ON oncue_finished (finished_at) WHERE state = 'discarded';
CREATE INDEX oncue_finished_origin ON oncue_finished (origin, origin_ref) WHERE origin IS NOT NULL;

-- The attempts that did not end their job.
CREATE TABLE oncue_attempt (
  job           INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  outcome       TEXT    NOT NULL,
  scheduled_at  INTEGER NOT NULL,
  started_at    INTEGER NOT NULL,
  finished_at   INTEGER NOT NULL,
  worker        INTEGER,
  error         TEXT,
  traceback     TEXT,
  reason        TEXT,
  PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;

-- One row per life of a worker process; its lease covers all jobs that it holds.
CREATE TABLE oncue_worker (
  id            INTEGER PRIMARY KEY,
  name          TEXT    NOT NULL,
  host          TEXT    NOT NULL,
  pid           INTEGER NOT NULL,
  queues        TEXT,                  -- JSON: names, or names with their weights; NULL for all
  tasks         TEXT,                  -- JSON: the names that it knows
  version       TEXT,                  -- of its OnCue
  started_at    INTEGER NOT NULL,
  seen_at       INTEGER NOT NULL,
  lease_until   INTEGER NOT NULL
) STRICT;

CREATE TABLE oncue_schedule (
  name          TEXT    PRIMARY KEY,
  task          TEXT    NOT NULL,
  args          TEXT    NOT NULL,
  expression    TEXT    NOT NULL,
  timezone      TEXT    NOT NULL,
  options       TEXT    NOT NULL,
  next_at       INTEGER,               -- the nominal time of the next fire; NULL when there is none
  last_at       INTEGER,
  paused        INTEGER NOT NULL DEFAULT 0,
  missed        INTEGER NOT NULL DEFAULT 0,
  created_at    INTEGER NOT NULL
) STRICT;

-- The sources that were swept, and how that went. Counts add up; unreadable and drift are as of the last sweep.
CREATE TABLE oncue_source (
  name          TEXT    PRIMARY KEY,
  app           TEXT    NOT NULL,
  swept_at      INTEGER,
  listed_at     INTEGER NOT NULL DEFAULT 0,   -- when the listing began that was applied last
  made          INTEGER NOT NULL DEFAULT 0,
  moved         INTEGER NOT NULL DEFAULT 0,
  cancelled     INTEGER NOT NULL DEFAULT 0,
  unreadable    INTEGER NOT NULL DEFAULT 0,
  drift         TEXT
) STRICT;

-- What was handled last for each row of a source: only a changed due value makes another job.
CREATE TABLE oncue_source_row (
  source        TEXT    NOT NULL,
  row_key       ANY     NOT NULL,
  due           INTEGER NOT NULL,
  raw           ANY,                   -- the due value as it stands in the row
  job           INTEGER NOT NULL,
  unsettled     INTEGER NOT NULL DEFAULT 0,   -- 1: the job may end as skipped, so look how it ended
  PRIMARY KEY (source, row_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX oncue_source_row_due ON oncue_source_row (source, due);

-- Rows of a source that its trigger saw change, until they are reconciled.
CREATE TABLE oncue_source_change (
  source        TEXT    NOT NULL,
  row_key       ANY     NOT NULL,
  PRIMARY KEY (source, row_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE oncue_limit (
  name          TEXT    PRIMARY KEY,
  tat           INTEGER NOT NULL,
  backlog       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE oncue_queue (
  name          TEXT    PRIMARY KEY,
  paused        INTEGER NOT NULL DEFAULT 0,
  paused_at     INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE oncue_counter (
  name          TEXT    PRIMARY KEY,
  value         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO oncue_counter (name, value) VALUES ('job', 0), ('worker', 0);
