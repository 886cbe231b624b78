-- Since when something is wrong, when an attempt was claimed, and when a job was due before it was moved. Times are
-- microseconds since the epoch.
ALTER TABLE oncue_worker ADD COLUMN wake TEXT;            -- what is wrong with its wake channel; NULL while it works
ALTER TABLE oncue_worker ADD COLUMN wake_since INTEGER;
ALTER TABLE oncue_worker ADD COLUMN reconnect_at INTEGER; -- when somebody last asked it to connect the channel anew
ALTER TABLE oncue_source ADD COLUMN drift_since INTEGER;  -- the first sweep that found what is wrong since then
ALTER TABLE oncue_finished ADD COLUMN claimed_at INTEGER;
ALTER TABLE oncue_attempt ADD COLUMN claimed_at INTEGER;
ALTER TABLE oncue_job ADD COLUMN first_due INTEGER;  -- NULL where it was not moved before its first attempt
ALTER TABLE oncue_finished ADD COLUMN first_due INTEGER;
ALTER TABLE oncue_job ADD COLUMN first_max INTEGER;   -- of attempts, before it was put back; NULL where it was not
ALTER TABLE oncue_finished ADD COLUMN first_max INTEGER;
