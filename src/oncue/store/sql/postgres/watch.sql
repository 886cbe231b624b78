-- Named queries of metrics and alerts, in the same order in every dialect.

-- name: note_event
INSERT INTO oncue_counter (name, value) VALUES (:name::text, :now::bigint)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: last_event
SELECT value FROM oncue_counter WHERE name = :name::text;

-- name: late_jobs
-- By queue: how many jobs were to start by then (10,000 a priority at most) and don't run, how many of these wait
-- behind others (100,000 in all at most), and since when the first one is due. What is paused, held after a restore or
-- behind a limit, of which there may be a million, doesn't count.
WITH RECURSIVE {lane},
  late (queue, jobs, blocked, first) AS (
    SELECT lane.queue,
      (SELECT count(*) FROM (
         SELECT 1 FROM oncue_job AS j
         WHERE j.state = 'scheduled' AND j.eligible_at <= :before::bigint AND j.queue = lane.queue
           AND j.priority = lane.priority AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
         LIMIT 10000) AS few),
      0::bigint,
      (SELECT j.eligible_at FROM oncue_job AS j
       WHERE j.state = 'scheduled' AND j.eligible_at <= :before::bigint AND j.queue = lane.queue
         AND j.priority = lane.priority AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
       ORDER BY j.eligible_at LIMIT 1)
    FROM lane
    UNION ALL
    SELECT queue, count(*), count(*), min(scheduled_at) FROM (
      SELECT queue, scheduled_at FROM oncue_job
      WHERE (blocked_by < 'limit:' OR blocked_by >= 'limit;') AND blocked_by <> 'restore' AND eligible_at IS NULL
        AND scheduled_at <= :before::bigint AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
      LIMIT 100000) AS waiting
    GROUP BY queue
  )
SELECT coalesce(json_agg(json_build_array(queue, jobs, blocked, first) ORDER BY queue), '[]')::text FROM (
  SELECT queue, sum(jobs)::bigint AS jobs, sum(blocked)::bigint AS blocked, min(first) AS first FROM late
  WHERE jobs > 0 AND queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
  GROUP BY queue) AS found;

-- name: paused
SELECT coalesce(json_agg(json_build_array(what, name, paused_at) ORDER BY what, name), '[]')::text FROM (
  SELECT 'queue' AS what, name, paused_at FROM oncue_queue WHERE paused = 1
  UNION ALL SELECT 'task', name, paused_at FROM oncue_task_pause) AS found;

-- name: schema_version
SELECT value FROM oncue_counter WHERE name = 'schema';

-- name: finished_counts
SELECT coalesce(json_object_agg(state, n), '{}')::text FROM (
  SELECT state, count(*) AS n FROM oncue_finished WHERE state <> 'discarded' GROUP BY state) AS found;

-- name: message_states
SELECT coalesce(json_agg(json_build_array(channel, state, n) ORDER BY channel, state), '[]')::text FROM (
  SELECT channel, state, count(*) AS n FROM oncue_message GROUP BY channel, state) AS found;

-- name: discards_since
SELECT json_build_array(
  (SELECT count(*) FROM oncue_finished WHERE state = 'discarded' AND finished_at > :since::bigint),
  (SELECT json_build_array(id, task, coalesce(error, reason, '')) FROM oncue_finished
   WHERE state = 'discarded' AND finished_at > :since::bigint ORDER BY finished_at DESC LIMIT 1))::text;

-- name: alerts
SELECT coalesce(json_agg(json_build_array(name, since, ended_at, told_at, busy_until, tries, found)), '[]')::text
FROM oncue_alert WHERE app = :app::text;

-- name: raise_alert
INSERT INTO oncue_alert (app, name, since, found) VALUES (:app::text, :name::text, :now::bigint, :found::text)
ON CONFLICT (app, name) DO UPDATE SET found = excluded.found, ended_at = NULL, told_at = NULL, busy_until = NULL, tries = 0,
  -- Nobody was told that it had ended, so for those who wait for that it goes on.
  since = CASE WHEN oncue_alert.told_at IS NULL THEN oncue_alert.since ELSE excluded.since END
WHERE oncue_alert.ended_at IS NOT NULL;

-- name: end_alert
UPDATE oncue_alert SET ended_at = :now::bigint, told_at = NULL, busy_until = NULL, tries = 0
WHERE app = :app::text AND name = :name::text AND ended_at IS NULL;

-- name: take_alert
UPDATE oncue_alert SET busy_until = :until::bigint, tries = tries + 1, found = :found::text
WHERE app = :app::text AND name = :name::text AND (busy_until IS NULL OR busy_until <= :now::bigint)
  AND (told_at IS NULL OR (ended_at IS NULL AND told_at <= :again::bigint));

-- name: told_alert
UPDATE oncue_alert SET told_at = :now::bigint, busy_until = NULL, tries = 0
WHERE app = :app::text AND name = :name::text AND since = :since::bigint AND (ended_at IS NOT NULL) = :ended::int::boolean;
