-- Looking at jobs.

-- name: list_jobs
-- Who made a job that was put back since stands in origin_ref, with what stood there.
SELECT json_group_array(json(j)) FROM (
  SELECT id, json_object(
    'id', id, 'state', state, 'outcome', NULL, 'task', task, 'args', json(args), 'queue', queue, 'priority', priority,
    'scheduled_at', scheduled_at, 'eligible_at', eligible_at, 'blocked_by', blocked_by, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', claimed_at,
    'finished_at', NULL, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', json(metadata), 'origin', coalesce(origin, origin_ref->>0),
    'origin_ref', CASE WHEN origin IS NULL THEN origin_ref->>1 ELSE origin_ref END, 'folded', folded,
    'progress', json(progress), 'created_at', created_at, 'cancel', cancel, 'result', NULL, 'error', NULL,
    'traceback', NULL, 'reason', NULL, 'claimed_at', claimed_at,
    'first_due', first_due) AS j
  FROM oncue_job WHERE {where}
  UNION ALL
  SELECT id, json_object(
    'id', id, 'state', state, 'outcome', outcome, 'task', task, 'args', json(args), 'queue', queue,
    'priority', priority, 'scheduled_at', scheduled_at, 'eligible_at', NULL, 'blocked_by', NULL, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', started_at,
    'finished_at', finished_at, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', json(metadata), 'origin', coalesce(origin, origin_ref->>0),
    'origin_ref', CASE WHEN origin IS NULL THEN origin_ref->>1 ELSE origin_ref END, 'folded', folded,
    'progress', json(progress), 'created_at', created_at, 'cancel', 0, 'result', json(result), 'error', error,
    'traceback', traceback, 'reason', reason, 'claimed_at', claimed_at,
    'first_due', first_due) AS j
  FROM oncue_finished WHERE {where}
  ORDER BY id DESC LIMIT :limit);

-- name: where_id
id = :id;

-- name: where_ids
id IN (SELECT value FROM json_each(:ids));

-- name: where_before
id < :before;

-- name: where_state
state IN (SELECT value FROM json_each(:state));

-- name: where_task
task = :task;

-- name: where_queue
queue = :queue;

-- name: where_key
key = :key;

-- name: where_group
group_name = :group;

-- name: gone
SELECT json_group_array(value) FROM json_each(:ids)
WHERE NOT EXISTS (SELECT 1 FROM oncue_job WHERE id = value);

-- name: attempts_of
-- The first, and those since that number.
SELECT json_group_array(json_object(
  'attempt', attempt, 'outcome', outcome, 'scheduled_at', scheduled_at, 'started_at', started_at,
  'finished_at', finished_at, 'worker', worker, 'error', error, 'traceback', traceback, 'reason', reason,
  'claimed_at', claimed_at))
FROM (SELECT * FROM oncue_attempt WHERE job = :id AND (attempt = 1 OR attempt >= :since) ORDER BY attempt);

-- name: counts
SELECT json_object(
  'scheduled', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :now),
  'due', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at <= :now),
  'blocked', (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL),
  'running', (SELECT count(*) FROM oncue_job WHERE state = 'running'),
  'completed', (SELECT count(*) FROM oncue_finished WHERE state = 'completed'),
  'discarded', (SELECT count(*) FROM oncue_finished WHERE state = 'discarded'),
  'cancelled', (SELECT count(*) FROM oncue_finished WHERE state = 'cancelled'),
  'next_due', (SELECT min(eligible_at) FROM oncue_job WHERE state = 'scheduled')
);

-- name: backlog
WITH RECURSIVE {lane},
  served (queue, priority) AS (
    SELECT queue, priority FROM lane
    WHERE queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
  )
SELECT json_object(
  'remaining', (
    SELECT coalesce(sum((SELECT count(*) FROM oncue_job AS j
                         WHERE j.state = 'scheduled' AND j.eligible_at <= :now AND j.queue = served.queue
                           AND j.priority = served.priority
                           AND j.task NOT IN (SELECT name FROM oncue_task_pause))), 0) FROM served) + (
    SELECT count(*) FROM oncue_job
    WHERE blocked_by IS NOT NULL AND blocked_by <> 'restore' AND scheduled_at <= :now
      AND (eligible_at IS NULL OR eligible_at > :now)
      AND queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND task NOT IN (SELECT name FROM oncue_task_pause)
      AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))),
  'next_due', (SELECT min(due) FROM (
    SELECT (SELECT eligible_at FROM oncue_job AS j
            WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = served.queue
              AND j.priority = served.priority AND j.task NOT IN (SELECT name FROM oncue_task_pause)
            ORDER BY eligible_at LIMIT 1) AS due FROM served
    UNION ALL SELECT min(next_at) FROM oncue_schedule WHERE paused = 0))
);

-- name: coming
WITH RECURSIVE {lane}
SELECT json_group_array(json_array(id, eligible_at))
FROM (SELECT j.id, j.eligible_at FROM lane CROSS JOIN oncue_job AS j
      WHERE j.state = 'scheduled' AND j.eligible_at > :after AND j.eligible_at <= :until
        AND j.queue = lane.queue AND j.priority = lane.priority
        AND j.task NOT IN (SELECT name FROM oncue_task_pause)
        AND lane.queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
        AND (:queues IS NULL OR lane.queue IN (SELECT value FROM json_each(:queues)))
      ORDER BY j.eligible_at, j.id LIMIT :limit);

-- name: queues
SELECT json_group_array(json_object(
  'name', name, 'paused', json(CASE WHEN paused THEN 'true' ELSE 'false' END), 'paused_at', paused_at,
  'waiting', coalesce(waiting, 0), 'due', coalesce(due, 0), 'blocked', coalesce(blocked, 0),
  'running', coalesce(running, 0)))
FROM (
  SELECT name, max(paused) AS paused, max(paused_at) AS paused_at, sum(waiting) AS waiting, sum(due) AS due,
         sum(blocked) AS blocked, sum(running) AS running
  FROM (
    SELECT queue AS name, 0 AS paused, NULL AS paused_at,
           sum(state = 'scheduled' AND eligible_at > :now) AS waiting,
           sum(state = 'scheduled' AND eligible_at <= :now) AS due, sum(eligible_at IS NULL) AS blocked,
           sum(state = 'running') AS running
    FROM oncue_job GROUP BY queue
    UNION ALL SELECT name, paused, paused_at, 0, 0, 0, 0 FROM oncue_queue)
  GROUP BY name ORDER BY name);

-- name: blocked_names
SELECT json_group_array(json_array(blocked_by, n)) FROM (
  SELECT blocked_by, count(*) AS n FROM oncue_job
  WHERE blocked_by IS NOT NULL AND eligible_at IS NULL GROUP BY blocked_by ORDER BY blocked_by);

-- name: overdue
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_job WHERE state = 'scheduled' AND scheduled_at < :before ORDER BY scheduled_at, id LIMIT :limit);
