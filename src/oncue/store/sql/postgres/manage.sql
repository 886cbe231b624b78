-- What is done to single jobs, to queues, and after a restored backup.

-- name: find_by_id
SELECT coalesce(json_agg(json_build_array(id, state, attempt, key, group_name)), '[]')::text FROM (
  SELECT * FROM oncue_job WHERE id = :id::bigint FOR UPDATE) AS found;

-- name: find_by_key
SELECT coalesce(json_agg(json_build_array(id, state, attempt, key, group_name)), '[]')::text FROM (
  SELECT * FROM (SELECT * FROM oncue_job WHERE key = :key AND attempt = 0 FOR UPDATE) AS waiting
  UNION ALL
  SELECT * FROM (SELECT * FROM oncue_job WHERE key = :key AND attempt > 0 FOR UPDATE) AS started) AS found;

-- name: state_of
SELECT state FROM oncue_job WHERE id = :id::bigint
UNION ALL SELECT state FROM oncue_finished WHERE id = :id::bigint;

-- name: request_cancel
UPDATE oncue_job SET cancel = 1 WHERE id = :id::bigint AND state = 'running';

-- name: restart_finished
-- Of a schedule's or a source's no more: what an operator wants run is run, whatever these say by now. Who made it
-- stands in origin_ref from then on, with what stood there.
INSERT INTO oncue_job (id, task, args, queue, priority, scheduled_at, eligible_at, attempt, snoozes, max_attempts, key,
                       group_name, max_late, when_late, metadata, folded, created_at, first_due, first_max,
                       origin, origin_ref)
SELECT id, task, args, queue, priority, :due::bigint, :due::bigint, attempt, snoozes,
       attempt - snoozes + coalesce(first_max, max_attempts),
       key, group_name, max_late, when_late, metadata, folded, created_at, first_due,
       coalesce(first_max, max_attempts), CASE WHEN substr(origin, 1, 4) = 'api:' THEN origin END,
       CASE WHEN origin IS NULL OR substr(origin, 1, 4) = 'api:' THEN origin_ref ELSE json_build_array(origin, origin_ref)::text END
FROM oncue_finished WHERE id = :id::bigint AND state <> 'completed'
ON CONFLICT DO NOTHING;

-- name: record_finished
-- What was cancelled between attempts has that of the last one already, with its error.
INSERT INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error, traceback,
                           reason, claimed_at)
SELECT id, attempt, outcome, scheduled_at, coalesce(started_at, finished_at), finished_at, worker, error, traceback,
       reason, claimed_at
FROM oncue_finished WHERE id = :id::bigint
ON CONFLICT DO NOTHING;

-- name: drop_history
DELETE FROM oncue_finished WHERE id = :id::bigint;

-- name: replace_result
UPDATE oncue_finished SET result = :result, reason = :reason
WHERE id = :id::bigint AND worker = :worker::bigint AND attempt = :attempt::int AND state = 'completed';

-- name: set_progress
UPDATE oncue_job SET progress = :progress WHERE id = :id::bigint AND worker = :worker::bigint AND attempt = :attempt::int;

-- name: set_queue
INSERT INTO oncue_queue AS q (name, paused, paused_at)
VALUES (:name, :paused::int, CASE WHEN :paused::int = 1 THEN :now::bigint END)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused,
  paused_at = CASE WHEN excluded.paused = 1 THEN coalesce(q.paused_at, excluded.paused_at) END;

-- name: hold_due
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore', state = 'scheduled', worker = NULL, holds = 0
WHERE scheduled_at <= :now::bigint OR state = 'running';

-- name: mark_restored
INSERT INTO oncue_counter (name, value) VALUES ('restored', :now::bigint)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: unmark_restored
DELETE FROM oncue_counter WHERE name = 'restored';

-- name: release_held
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL WHERE blocked_by = 'restore';
