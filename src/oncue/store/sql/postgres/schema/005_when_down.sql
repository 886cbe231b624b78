ALTER TABLE oncue_worker DROP COLUMN wake, DROP COLUMN wake_since, DROP COLUMN reconnect_at;
ALTER TABLE oncue_source DROP COLUMN drift_since;
ALTER TABLE oncue_finished DROP COLUMN claimed_at, DROP COLUMN first_due, DROP COLUMN first_max;
ALTER TABLE oncue_job DROP COLUMN first_due, DROP COLUMN first_max;
ALTER TABLE oncue_attempt DROP COLUMN claimed_at;
