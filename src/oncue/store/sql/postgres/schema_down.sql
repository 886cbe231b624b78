-- Takes schema.sql back: every job and all history with it. The schema itself may be somebody else's, so it stays.
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
