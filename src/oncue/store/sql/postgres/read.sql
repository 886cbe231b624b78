-- Looking at jobs.

-- name: list_jobs
-- Who made a job that was put back since stands in origin_ref, with what stood there.
SELECT coalesce(json_agg(j), '[]')::text FROM (
  SELECT id, json_build_object(
    'id', id, 'state', state, 'outcome', NULL, 'task', task, 'args', args::json, 'queue', queue, 'priority', priority,
    'scheduled_at', scheduled_at, 'eligible_at', eligible_at, 'blocked_by', blocked_by, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', claimed_at,
    'finished_at', NULL, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', metadata::json, 'origin', coalesce(origin, origin_ref::json->>0),
    'origin_ref', CASE WHEN origin IS NULL THEN origin_ref::json->>1 ELSE origin_ref END, 'folded', folded,
    'progress', progress::json, 'created_at', created_at, 'cancel', cancel, 'result', NULL, 'error', NULL,
    'traceback', NULL, 'reason', NULL, 'claimed_at', claimed_at,
    'first_due', first_due) AS j
  FROM oncue_job WHERE {where}
  UNION ALL
  SELECT id, json_build_object(
    'id', id, 'state', state, 'outcome', outcome, 'task', task, 'args', args::json, 'queue', queue,
    'priority', priority, 'scheduled_at', scheduled_at, 'eligible_at', NULL, 'blocked_by', NULL, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', started_at,
    'finished_at', finished_at, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', metadata::json, 'origin', coalesce(origin, origin_ref::json->>0),
    'origin_ref', CASE WHEN origin IS NULL THEN origin_ref::json->>1 ELSE origin_ref END, 'folded', folded,
    'progress', progress::json, 'created_at', created_at, 'cancel', 0, 'result', result::json, 'error', error,
    'traceback', traceback, 'reason', reason, 'claimed_at', claimed_at,
    'first_due', first_due) AS j
  FROM oncue_finished WHERE {where}
  ORDER BY id DESC LIMIT :limit::int) AS found;

-- name: where_id
id = :id::bigint;

-- name: where_ids
id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)));

-- name: where_before
id < :before::bigint;

-- name: where_state
state = ANY (ARRAY(SELECT json_array_elements_text(:state::json)));

-- name: where_task
task = :task;

-- name: where_queue
queue = :queue;

-- name: where_key
key = :key;

-- name: where_group
group_name = :group;

-- name: gone
SELECT coalesce(json_agg(value::bigint), '[]')::text FROM json_array_elements_text(:ids::json)
WHERE NOT EXISTS (SELECT 1 FROM oncue_job WHERE id = value::bigint);

-- name: attempts_of
-- The first, and those since that number.
SELECT coalesce(json_agg(json_build_object(
  'attempt', attempt, 'outcome', outcome, 'scheduled_at', scheduled_at, 'started_at', started_at,
  'finished_at', finished_at, 'worker', worker, 'error', error, 'traceback', traceback, 'reason', reason,
  'claimed_at', claimed_at)), '[]')::text
FROM (SELECT * FROM oncue_attempt WHERE job = :id::bigint AND (attempt = 1 OR attempt >= :since::int)
      ORDER BY attempt) AS a;

-- name: counts
SELECT json_build_object(
  'scheduled', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :now::bigint),
  'due', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at <= :now::bigint),
  'blocked', (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL),
  'running', (SELECT count(*) FROM oncue_job WHERE state = 'running'),
  'completed', (SELECT count(*) FROM oncue_finished WHERE state = 'completed'),
  'discarded', (SELECT count(*) FROM oncue_finished WHERE state = 'discarded'),
  'cancelled', (SELECT count(*) FROM oncue_finished WHERE state = 'cancelled'),
  'next_due', (SELECT min(eligible_at) FROM oncue_job WHERE state = 'scheduled')
)::text;

-- name: backlog
WITH RECURSIVE {lane},
  served (queue, priority) AS (
    SELECT queue, priority FROM lane
    WHERE queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND (:queues::text IS NULL OR queue = ANY (ARRAY(SELECT json_array_elements_text(:queues::json))))
  )
SELECT json_build_object(
  'remaining', (
    SELECT coalesce(sum((SELECT count(*) FROM oncue_job AS j
                         WHERE j.state = 'scheduled' AND j.eligible_at <= :now::bigint AND j.queue = served.queue
                           AND j.priority = served.priority
                           AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause)))), 0)::bigint FROM served) + (
    SELECT count(*) FROM oncue_job
    WHERE blocked_by IS NOT NULL AND blocked_by <> 'restore' AND scheduled_at <= :now::bigint
      AND (eligible_at IS NULL OR eligible_at > :now::bigint)
      AND queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
      AND (:queues::text IS NULL OR queue = ANY (ARRAY(SELECT json_array_elements_text(:queues::json))))),
  'next_due', (SELECT min(due) FROM (
    SELECT (SELECT eligible_at FROM oncue_job AS j
            WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = served.queue
              AND j.priority = served.priority AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
            ORDER BY eligible_at, id LIMIT 1) AS due FROM served
    UNION ALL SELECT min(next_at) FROM oncue_schedule WHERE paused = 0) AS times)
)::text;

-- name: coming
WITH RECURSIVE {lane}
SELECT coalesce(json_agg(json_build_array(id, eligible_at) ORDER BY eligible_at, id), '[]')::text
FROM (SELECT f.id, f.eligible_at FROM lane, LATERAL (
        SELECT j.id, j.eligible_at FROM oncue_job AS j
        WHERE j.state = 'scheduled' AND j.eligible_at > :after::bigint AND j.eligible_at <= :until::bigint
          AND j.queue = lane.queue AND j.priority = lane.priority
          AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
        ORDER BY eligible_at, id LIMIT :limit::int) AS f
      WHERE lane.queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
        AND (:queues::text IS NULL OR lane.queue = ANY (ARRAY(SELECT json_array_elements_text(:queues::json))))
      ORDER BY f.eligible_at, f.id LIMIT :limit::int) AS c;

-- name: queues
SELECT coalesce(json_agg(json_build_object(
  'name', name, 'paused', paused = 1, 'paused_at', paused_at, 'waiting', waiting, 'due', due, 'blocked', blocked, 'running', running)
  ORDER BY name), '[]')::text
FROM (
  SELECT name, max(paused) AS paused, max(paused_at) AS paused_at, sum(waiting)::bigint AS waiting, sum(due)::bigint AS due,
         sum(blocked)::bigint AS blocked, sum(running)::bigint AS running
  FROM (
    SELECT queue AS name, 0 AS paused, NULL::bigint AS paused_at,
           count(*) FILTER (WHERE state = 'scheduled' AND eligible_at > :now::bigint) AS waiting,
           count(*) FILTER (WHERE state = 'scheduled' AND eligible_at <= :now::bigint) AS due,
           count(*) FILTER (WHERE eligible_at IS NULL) AS blocked,
           count(*) FILTER (WHERE state = 'running') AS running
    FROM oncue_job GROUP BY queue
    UNION ALL SELECT name, paused, paused_at, 0, 0, 0, 0 FROM oncue_queue) AS each
  GROUP BY name) AS q;

-- name: blocked_names
SELECT coalesce(json_agg(json_build_array(blocked_by, n)), '[]')::text FROM (
  SELECT blocked_by, count(*) AS n FROM oncue_job
  WHERE blocked_by IS NOT NULL AND eligible_at IS NULL GROUP BY blocked_by ORDER BY blocked_by) AS b;

-- name: overdue
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE state = 'scheduled' AND scheduled_at < :before::bigint
  ORDER BY scheduled_at, id LIMIT :limit::int) AS o;
