-- Outcomes of attempts, each fenced by the worker that claimed.

-- name: finish_jobs
-- A full join can't be done as nested loops, which is what a planner without statistics would choose.
WITH
  a AS (
    SELECT * FROM unnest(:id::bigint[], :state::text[], :outcome::text[], :started_at::bigint[],
                         :finished_at::bigint[], :result::text[], :error::text[], :traceback::text[], :reason::text[],
                         :expires_at::bigint[])
      AS a (ack, state, outcome, started_at, finished_at, result, error, traceback, reason, expires_at)),
  gone AS (
    DELETE FROM oncue_job
    WHERE id = ANY (:id::bigint[]) AND worker IS NOT DISTINCT FROM :worker::bigint AND attempt = :attempt::int
    RETURNING id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, worker, key, group_name,
              max_late, when_late, metadata, origin, origin_ref, folded, progress, created_at, claimed_at,
              first_due, first_max),
  joined AS MATERIALIZED (
    SELECT gone.id, task, args, queue, priority, a.state, a.outcome, scheduled_at, attempt, snoozes, max_attempts,
           worker, a.started_at, a.finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref,
           folded, progress, created_at, a.result, a.error, a.traceback, a.reason, a.expires_at, claimed_at,
           first_due, first_max, a.ack
    FROM gone FULL JOIN a ON a.ack = gone.id),
  kept AS (
    INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                                max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                                metadata, origin, origin_ref, folded, progress, created_at, result, error, traceback,
                                reason, expires_at, claimed_at, first_due, first_max)
    SELECT id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes, max_attempts, worker,
           started_at, finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref, folded,
           progress, created_at, result, error, traceback, reason, expires_at, claimed_at, first_due,
           first_max
    FROM joined WHERE coalesce(id, 0) > 0)
SELECT coalesce(json_agg(ack), '[]')::text FROM joined WHERE coalesce(id, 0) = 0;

-- name: finish_completed
-- The same for first-rate outcomes, which differ in their times only: a third of the work.
WITH
  a AS (
    SELECT * FROM unnest(:id::bigint[], :started_at::bigint[], :finished_at::bigint[])
      AS a (ack, started_at, finished_at)),
  gone AS (
    DELETE FROM oncue_job
    WHERE id = ANY (:id::bigint[]) AND worker IS NOT DISTINCT FROM :worker::bigint AND attempt = :attempt::int
    RETURNING id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, worker, key, group_name,
              max_late, when_late, metadata, origin, origin_ref, folded, progress, created_at, claimed_at,
              first_due, first_max),
  joined AS MATERIALIZED (SELECT * FROM gone FULL JOIN a ON a.ack = gone.id),
  kept AS (
    INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                                max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                                metadata, origin, origin_ref, folded, progress, created_at, expires_at, claimed_at,
                                first_due, first_max)
    SELECT id, task, args, queue, priority, 'completed', 'completed', scheduled_at, attempt, snoozes, max_attempts,
           worker, started_at, finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref,
           folded, progress, created_at, finished_at + :retention::bigint, claimed_at, first_due, first_max
    FROM joined WHERE coalesce(id, 0) > 0)
SELECT coalesce(json_agg(ack), '[]')::text FROM joined WHERE coalesce(id, 0) = 0;

-- name: record_attempts
INSERT INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error, traceback,
                           reason, claimed_at)
SELECT j.id, j.attempt, a->>3, j.scheduled_at, (a->>4)::bigint, (a->>5)::bigint, j.worker, a->>7, a->>8, a->>9,
       j.claimed_at
FROM json_array_elements(:acks::json) AS a JOIN oncue_job AS j ON j.id = (a->>0)::bigint
WHERE j.worker = :worker::bigint AND j.attempt = (a->>1)::int
ON CONFLICT (job, attempt) DO UPDATE SET outcome = excluded.outcome, scheduled_at = excluded.scheduled_at,
  started_at = excluded.started_at, finished_at = excluded.finished_at, worker = excluded.worker,
  error = excluded.error, traceback = excluded.traceback, reason = excluded.reason, claimed_at = excluded.claimed_at;

-- name: put_back
UPDATE oncue_job
SET state = 'scheduled', worker = NULL, claimed_at = NULL, blocked_by = NULL, scheduled_at = (a->>10)::bigint,
    eligible_at = (a->>11)::bigint, snoozes = snoozes + (a->>12)::int, holds = (a->>13)::int
FROM json_array_elements(:acks::json) AS a
WHERE oncue_job.id = (a->>0)::bigint AND worker = :worker::bigint AND attempt = (a->>1)::int;

-- name: lost_claims
SELECT coalesce(json_agg((a->>0)::bigint), '[]')::text FROM json_array_elements(:acks::json) AS a
WHERE NOT EXISTS (SELECT 1 FROM oncue_job AS j
                  WHERE j.id = (a->>0)::bigint AND j.worker = :worker::bigint AND j.attempt = (a->>1)::int);
