-- Finding and claiming what is due.

-- name: peek
WITH RECURSIVE {lane}
SELECT json_build_object(
  'lanes', (SELECT coalesce(json_agg(json_build_array(queue, priority, f.eligible_at, f.bound)), '[]') FROM lane,
              LATERAL (SELECT eligible_at, (key IS NOT NULL OR group_name IS NOT NULL
                                                OR task = ANY (:bound::text[]))::int AS bound
                       FROM oncue_job AS j
                       WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = lane.queue
                         AND j.priority = lane.priority AND task <> ALL (:unknown::text[])
                         AND task <> ALL (ARRAY(SELECT name FROM oncue_task_pause))
                       ORDER BY eligible_at, id LIMIT 1) AS f),
  'lease_until', (SELECT lease_until FROM oncue_worker WHERE id = :worker::bigint AND lease_until >= 0),
  'left', (SELECT EXISTS (SELECT 1 FROM oncue_worker WHERE lease_until < 0))::int,
  'others_until', (SELECT min(lease_until) FROM oncue_worker AS w WHERE id <> :worker::bigint AND lease_until >= 0
                   AND EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.worker = w.id AND j.state = 'running')),
  'next_fire', (SELECT min(next_at) FROM oncue_schedule WHERE paused = 0),
  'paused', (SELECT coalesce(json_agg(name), '[]') FROM oncue_queue WHERE paused = 1),
  'paused_tasks', (SELECT coalesce(json_agg(name), '[]') FROM oncue_task_pause),
  'cancel', (SELECT coalesce(json_agg(id), '[]') FROM oncue_job
             WHERE worker = :worker::bigint AND state = 'running' AND cancel = 1),
  'changed', (SELECT EXISTS (SELECT 1 FROM oncue_source_change))::int,
  'freed', (SELECT EXISTS (SELECT 1 FROM oncue_release))::int,
  'now', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
)::text;

-- name: candidates
SELECT coalesce(json_agg(json_build_array(
         id, task, args, queue, priority, scheduled_at, attempt + 1, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         eligible_at, :now::bigint)), '[]')::text
FROM (SELECT * FROM oncue_job
      WHERE state = 'scheduled' AND eligible_at IS NOT NULL AND queue = :queue AND priority = :priority::int
        AND eligible_at <= :until::bigint AND task <> ALL (ARRAY(SELECT json_array_elements_text(:except::json)))
        AND (blocked_by IS NULL OR blocked_by <> ALL (ARRAY(SELECT json_array_elements_text(:held::json))))
      ORDER BY eligible_at, id LIMIT :count::int FOR UPDATE SKIP LOCKED) AS c;

-- name: claim_jobs
UPDATE oncue_job
SET state = 'running', attempt = attempt + 1, worker = :worker::bigint, claimed_at = :now::bigint, blocked_by = NULL,
    holds = (group_name IS NOT NULL)::int
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json))) AND state = 'scheduled';

-- name: claim_plain
-- The jobs that nothing binds: no key, no group, no limit. Whoever claims others first takes the advisory lock.
-- A worker that others gave up meanwhile gets none; while it gets some, nobody can give it up.
UPDATE oncue_job
SET state = 'running', attempt = attempt + 1, worker = :worker::bigint, claimed_at = :now::bigint, blocked_by = NULL
WHERE id = ANY (ARRAY(
    SELECT id FROM oncue_job
    WHERE state = 'scheduled' AND eligible_at IS NOT NULL AND queue = :queue AND priority = :priority::int
      AND eligible_at <= :until::bigint AND task <> ALL (:unknown::text[])
    ORDER BY eligible_at, id LIMIT :count::int FOR UPDATE SKIP LOCKED))
  AND key IS NULL AND group_name IS NULL AND task <> ALL (:bound::text[])
  AND :worker::bigint = (SELECT id FROM oncue_worker WHERE id = :worker::bigint AND lease_until >= 0 FOR KEY SHARE)
RETURNING id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, key, group_name, holds,
          blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at, eligible_at,
          claimed_at;

-- name: park_jobs
UPDATE oncue_job SET blocked_by = p->>1, eligible_at = (p->>2)::bigint
FROM json_array_elements(:parked::json) AS p WHERE oncue_job.id = (p->>0)::bigint AND state = 'scheduled';

-- name: shift_waiting
-- What another transaction holds keeps its slot, and gets a new one when it is claimed.
WITH free AS MATERIALIZED (SELECT id FROM oncue_job WHERE blocked_by = :name FOR UPDATE SKIP LOCKED)
UPDATE oncue_job SET eligible_at = eligible_at + :shift::bigint FROM free WHERE oncue_job.id = free.id;

-- name: busy_groups
SELECT coalesce(json_agg(json_build_array(group_name, id)), '[]')::text FROM oncue_job
WHERE holds = 1 AND group_name = ANY (ARRAY(SELECT json_array_elements_text(:groups::json)));

-- name: group_heads
-- A job that waits for the started one of its key is no head: that one may wait for a place in this very group.
SELECT coalesce(json_agg(json_build_array(g, (
         SELECT id FROM oncue_job AS j WHERE group_name = g AND state = 'scheduled' AND holds = 0
         AND NOT (attempt = 0 AND key IS NOT NULL AND EXISTS (
           SELECT 1 FROM oncue_job AS s WHERE s.key = j.key AND s.key IS NOT NULL AND s.attempt > 0))
         ORDER BY scheduled_at, id LIMIT 1))), '[]')::text
FROM json_array_elements_text(:groups::json) AS g;

-- name: started_keys
SELECT coalesce(json_agg(json_build_array(key, id)), '[]')::text FROM oncue_job
WHERE key = ANY (ARRAY(SELECT json_array_elements_text(:keys::json))) AND attempt > 0;

-- name: buckets
SELECT coalesce(json_agg(json_build_array(name, tat, CASE WHEN EXISTS (
         SELECT 1 FROM oncue_job WHERE blocked_by = 'limit:' || name) THEN backlog ELSE 0 END)), '[]')::text
FROM oncue_limit WHERE name = ANY (ARRAY(SELECT json_array_elements_text(:names::json)));

-- name: save_buckets
INSERT INTO oncue_limit (name, tat, backlog)
SELECT b->>0, (b->>1)::bigint, (b->>2)::bigint FROM json_array_elements(:buckets::json) AS b
ON CONFLICT (name) DO UPDATE SET tat = excluded.tat, backlog = excluded.backlog;

-- name: running_counts
SELECT coalesce(json_agg(json_build_array(task, queue, n)), '[]')::text
FROM (SELECT task, queue, count(*) AS n FROM oncue_job WHERE state = 'running' GROUP BY task, queue) AS r;

-- name: next_in_lane
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
  AND queue = :queue AND priority = :priority::int
  AND task <> ALL (ARRAY(SELECT json_array_elements_text(:except::json)))
  AND (blocked_by IS NULL OR blocked_by <> ALL (ARRAY(SELECT json_array_elements_text(:held::json))))
ORDER BY eligible_at, id LIMIT 1;

-- name: lane_after
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :until::bigint
  AND queue = :queue AND priority = :priority::int
  AND task <> ALL (ARRAY(SELECT json_array_elements_text(:except::json)))
  AND (blocked_by IS NULL OR blocked_by <> ALL (ARRAY(SELECT json_array_elements_text(:held::json))))
ORDER BY eligible_at, id LIMIT 1;
