-- Finding and claiming what is due.

-- name: peek
WITH RECURSIVE {lane}
SELECT json_object(
  'lanes', (SELECT json_group_array(json_array(queue, priority, (
              SELECT eligible_at FROM oncue_job AS j
              WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = lane.queue
                AND j.priority = lane.priority ORDER BY eligible_at LIMIT 1), 1)) FROM lane),
  'lease_until', (SELECT lease_until FROM oncue_worker WHERE id = :worker),
  'others_until', (SELECT min(lease_until) FROM oncue_worker AS w WHERE id <> :worker
                   AND EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.worker = w.id AND j.state = 'running')),
  'next_fire', (SELECT min(next_at) FROM oncue_schedule WHERE paused = 0),
  'paused', (SELECT json_group_array(name) FROM oncue_queue WHERE paused = 1),
  'paused_tasks', (SELECT json_group_array(name) FROM oncue_task_pause),
  'cancel', (SELECT json_group_array(id) FROM oncue_job WHERE worker = :worker AND state = 'running' AND cancel = 1),
  'changed', EXISTS (SELECT 1 FROM oncue_source_change)
);

-- name: candidates
SELECT json_group_array(json_array(
         id, task, args, queue, priority, scheduled_at, attempt + 1, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         eligible_at, :now))
FROM (SELECT * FROM oncue_job
      WHERE state = 'scheduled' AND eligible_at IS NOT NULL AND queue = :queue AND priority = :priority
        AND eligible_at <= :until AND task NOT IN (SELECT value FROM json_each(:except))
        AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
      ORDER BY eligible_at, id LIMIT :count);

-- name: claim_jobs
UPDATE oncue_job
SET state = 'running', attempt = attempt + 1, worker = :worker, claimed_at = :now, blocked_by = NULL,
    holds = group_name IS NOT NULL
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'scheduled';

-- name: park_jobs
UPDATE oncue_job SET blocked_by = p.value->>1, eligible_at = p.value->>2
FROM json_each(:parked) AS p WHERE oncue_job.id = p.value->>0 AND state = 'scheduled';

-- name: shift_waiting
UPDATE oncue_job SET eligible_at = eligible_at + :shift WHERE blocked_by = :name;

-- name: busy_groups
SELECT json_group_array(json_array(group_name, id)) FROM oncue_job
WHERE holds = 1 AND group_name IN (SELECT value FROM json_each(:groups));

-- name: group_heads
-- A job that waits for the started one of its key is no head: that one may wait for a place in this very group.
SELECT json_group_array(json_array(g.value, (
         SELECT id FROM oncue_job AS j WHERE group_name = g.value AND state = 'scheduled' AND holds = 0
         AND NOT (attempt = 0 AND key IS NOT NULL AND EXISTS (
           SELECT 1 FROM oncue_job AS s WHERE s.key = j.key AND s.key IS NOT NULL AND s.attempt > 0))
         ORDER BY scheduled_at, id LIMIT 1)))
FROM json_each(:groups) AS g;

-- name: started_keys
SELECT json_group_array(json_array(key, id)) FROM oncue_job
WHERE key IS NOT NULL AND attempt > 0 AND key IN (SELECT value FROM json_each(:keys));

-- name: buckets
SELECT json_group_array(json_array(name, tat, CASE WHEN EXISTS (
         SELECT 1 FROM oncue_job WHERE blocked_by = 'limit:' || name) THEN backlog ELSE 0 END))
FROM oncue_limit WHERE name IN (SELECT value FROM json_each(:names));

-- name: save_buckets
INSERT INTO oncue_limit (name, tat, backlog) SELECT value->>0, value->>1, value->>2 FROM json_each(:buckets) WHERE true
ON CONFLICT (name) DO UPDATE SET tat = excluded.tat, backlog = excluded.backlog;

-- name: running_counts
SELECT json_group_array(json_array(task, queue, n))
FROM (SELECT task, queue, count(*) AS n FROM oncue_job WHERE state = 'running' GROUP BY task, queue);

-- name: next_in_lane
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
  AND queue = :queue AND priority = :priority AND task NOT IN (SELECT value FROM json_each(:except))
  AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
ORDER BY eligible_at LIMIT 1;

-- name: lane_after
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :until
  AND queue = :queue AND priority = :priority AND task NOT IN (SELECT value FROM json_each(:except))
  AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
ORDER BY eligible_at LIMIT 1;
