-- Since when something is wrong, when an attempt was claimed, and when a job was due before it was moved. Times are
-- microseconds since the epoch.
ALTER TABLE oncue_worker
  ADD COLUMN wake         text,   -- what is wrong with its wake channel; NULL while it works
  ADD COLUMN wake_since   bigint,
  ADD COLUMN reconnect_at bigint; -- when somebody last asked it to connect the channel anew
ALTER TABLE oncue_source ADD COLUMN drift_since bigint; -- the first sweep that found what is wrong since then
ALTER TABLE oncue_finished ADD COLUMN claimed_at bigint;
ALTER TABLE oncue_attempt ADD COLUMN claimed_at bigint;
ALTER TABLE oncue_job ADD COLUMN first_due bigint;   -- NULL where it was not moved before its first attempt
ALTER TABLE oncue_finished ADD COLUMN first_due bigint;
ALTER TABLE oncue_job ADD COLUMN first_max integer;   -- of attempts, before it was put back; NULL where it was not
ALTER TABLE oncue_finished ADD COLUMN first_max integer;
