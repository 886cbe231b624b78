-- Takes 001_jobs.sql back: every job and all history with it. The schema itself may be somebody else's, so it stays.
-- First the triggers of sources: they would make every write to the users' tables fail.
DO $$ DECLARE one regprocedure; BEGIN FOR one IN
  SELECT oid::regprocedure FROM pg_proc WHERE starts_with(proname, 'oncue_note_')
  AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'oncue_counter'::regclass)
  LOOP EXECUTE 'DROP FUNCTION ' || one || ' CASCADE'; END LOOP; END $$;
DROP TABLE oncue_job;
DROP TABLE oncue_finished;
DROP TABLE oncue_attempt;
DROP TABLE oncue_worker;
DROP TABLE oncue_schedule;
DROP TABLE oncue_source;
DROP TABLE oncue_source_row;
DROP TABLE oncue_source_change;
DROP TABLE oncue_limit;
DROP TABLE oncue_queue;
DROP TABLE oncue_release;
DROP TABLE oncue_counter;
