-- The jobs of BullMQ that were taken over: one that still lies in Redis, or is back there, is not taken over again.
CREATE TABLE oncue_adopted (
  timestamp     bigint  NOT NULL,     -- BullMQ's: milliseconds, by the producer's clock
  job           bigint  NOT NULL,
  expires       bigint  NOT NULL,
  queue         text    COLLATE "C" NOT NULL,   -- 'PREFIX:QUEUE'
  job_id        text    COLLATE "C" NOT NULL,
  PRIMARY KEY (queue, job_id, timestamp)
);
CREATE INDEX oncue_adopted_expires ON oncue_adopted (queue, expires);
