ALTER TABLE oncue_worker DROP COLUMN wake, DROP COLUMN wake_since, DROP COLUMN reconnect_at;
ALTER TABLE oncue_source DROP COLUMN drift_since;
