-- The jobs of BullMQ that were taken over: one that still lies in Redis, or is back there, is not taken over again.
CREATE TABLE oncue_adopted (
  queue         TEXT    NOT NULL,     -- 'PREFIX:QUEUE'
  job_id        TEXT    NOT NULL,
  timestamp     INTEGER NOT NULL,     -- BullMQ's: milliseconds, by the producer's clock
  job           INTEGER NOT NULL,
  expires       INTEGER NOT NULL,
  PRIMARY KEY (queue, job_id, timestamp)
) STRICT, WITHOUT ROWID;
CREATE INDEX oncue_adopted_expires ON oncue_adopted (queue, expires);
