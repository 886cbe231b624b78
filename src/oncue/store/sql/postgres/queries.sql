-- Named queries, in the same order in every dialect. Sets travel as one JSON text, or as arrays where they are large.

-- name: take_ids
SELECT json_agg(nextval('oncue_job_id_seq'))::text FROM generate_series(1, :count::int);

-- name: take_worker_ids
SELECT json_agg(nextval('oncue_worker_id_seq'))::text FROM generate_series(1, :count::int);

-- name: insert_jobs
WITH made AS (
  INSERT INTO oncue_job (id, task, args, queue, priority, scheduled_at, eligible_at, max_attempts, created_at, key,
                         group_name, max_late, when_late, metadata, origin, origin_ref, when_blocked)
  SELECT id, task, args, queue, priority, scheduled_at, scheduled_at, max_attempts, created_at, key, group_name,
         max_late, when_late, metadata, origin, origin_ref, when_blocked
  FROM unnest(:id::bigint[], :task::text[], :args::text[], :queue::text[], :priority::int[], :scheduled_at::bigint[],
              :max_attempts::int[], :created_at::bigint[], :key::text[], :group_name::text[], :max_late::bigint[],
              :when_late::text[], :metadata::text[], :origin::text[], :origin_ref::text[], :when_blocked::text[])
    AS n (id, task, args, queue, priority, scheduled_at, max_attempts, created_at, key, group_name, max_late,
          when_late, metadata, origin, origin_ref, when_blocked)
  ON CONFLICT DO NOTHING
  RETURNING id)
SELECT coalesce(json_agg(id), '[]')::text FROM made;

-- name: insert_plain
-- For jobs without a key or an origin, whose rows nothing can stand in the way of: ids, hint and time in one go.
-- A column without NULLs may come as the one value that all its rows have, and one of NULLs alone as no value.
WITH made AS (
  INSERT INTO oncue_job (task, args, queue, priority, scheduled_at, eligible_at, max_attempts, created_at, group_name,
                         max_late, when_late, metadata)
  SELECT coalesce(task, (:task::text[])[1]), args, coalesce(queue, (:queue::text[])[1]),
         coalesce(priority, (:priority::int[])[1]), coalesce(scheduled_at, (:scheduled_at::bigint[])[1]),
         coalesce(scheduled_at, (:scheduled_at::bigint[])[1]), coalesce(max_attempts, (:max_attempts::int[])[1]),
         coalesce(created_at, (:created_at::bigint[])[1]), group_name, max_late,
         coalesce(when_late, (:when_late::text[])[1]), metadata
  FROM unnest(:task::text[], :args::text[], :queue::text[], :priority::int[], :scheduled_at::bigint[],
              :max_attempts::int[], :created_at::bigint[], :group_name::text[], :max_late::bigint[],
              :when_late::text[], :metadata::text[])
    AS n (task, args, queue, priority, scheduled_at, max_attempts, created_at, group_name, max_late, when_late, metadata)
  RETURNING id)
SELECT array_agg(id ORDER BY id), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (SELECT pg_notify(:channel, :hint) WHERE :hint <> '')
FROM made;

-- name: notify
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_notify(:channel, :hint);

-- name: time
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- name: identity
-- Of these tables, here: a copy beside them, or on another server of the same host, is another one.
SELECT value || '-' || current_setting('port') || '-' || md5(current_database()) FROM oncue_counter
WHERE name = 'identity';

-- name: waiting_with_keys
-- They are locked: what is decided about them must still hold when this transaction commits. By id in order, so by a
-- list of ids: else all jobs are read in the order of their ids to find these.
SELECT coalesce(json_agg(json_build_array(id, key, scheduled_at, created_at, group_name)), '[]')::text FROM (
  SELECT id, key, scheduled_at, created_at, group_name FROM oncue_job
  WHERE attempt = 0 AND id = ANY (ARRAY(
    SELECT id FROM oncue_job WHERE key = ANY (ARRAY(SELECT json_array_elements_text(:keys::json))) AND attempt = 0))
  ORDER BY id FOR UPDATE) AS waiting;

-- name: started_with_keys
-- Asked once the waiting ones are locked: one that was claimed meanwhile is found here.
SELECT coalesce(json_agg(json_build_array(id, key, scheduled_at)), '[]')::text FROM oncue_job
WHERE key = ANY (ARRAY(SELECT json_array_elements_text(:keys::json))) AND attempt > 0;

-- name: forget_replaced
-- The job is locked before its row is forgotten: whoever applies a source's rows does it in this order too.
DELETE FROM oncue_source_row AS r
USING (SELECT substr(origin, 8) AS source,
              CASE WHEN origin LIKE 'source:%' THEN (origin_ref::json -> 0)::text END AS row_key
       FROM oncue_job WHERE id = :id::bigint AND attempt = 0 AND origin LIKE 'source:%' FOR UPDATE) AS j
WHERE r.job = :id::bigint AND r.source = j.source AND r.row_key = j.row_key;

-- name: replace_job
UPDATE oncue_job
SET task = j->>1, args = j->>2, queue = j->>3, priority = (j->>4)::int, scheduled_at = (j->>5)::bigint,
    eligible_at = (j->>5)::bigint, max_attempts = (j->>6)::int, group_name = j->>9, max_late = (j->>10)::bigint,
    when_late = j->>11, metadata = j->>12, blocked_by = NULL, origin = j->>13, origin_ref = j->>14
FROM json_array_elements(:jobs::json) AS j
WHERE oncue_job.id = (j->>0)::bigint AND attempt = 0;

-- name: fold_jobs
UPDATE oncue_job SET folded = folded + (f->>1)::int
FROM json_array_elements(:folds::json) AS f WHERE oncue_job.id = (f->>0)::bigint;

-- name: move_job
UPDATE oncue_job SET scheduled_at = :due::bigint, eligible_at = :due::bigint, blocked_by = NULL, holds = 0
WHERE id = :id::bigint AND state = 'scheduled';

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
              max_late, when_late, metadata, origin, origin_ref, folded, progress, created_at),
  joined AS MATERIALIZED (
    SELECT gone.id, task, args, queue, priority, a.state, a.outcome, scheduled_at, attempt, snoozes, max_attempts,
           worker, a.started_at, a.finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref,
           folded, progress, created_at, a.result, a.error, a.traceback, a.reason, a.expires_at, a.ack
    FROM gone FULL JOIN a ON a.ack = gone.id),
  kept AS (
    INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                                max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                                metadata, origin, origin_ref, folded, progress, created_at, result, error, traceback,
                                reason, expires_at)
    SELECT id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes, max_attempts, worker,
           started_at, finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref, folded,
           progress, created_at, result, error, traceback, reason, expires_at
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
              max_late, when_late, metadata, origin, origin_ref, folded, progress, created_at),
  joined AS MATERIALIZED (SELECT * FROM gone FULL JOIN a ON a.ack = gone.id),
  kept AS (
    INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                                max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                                metadata, origin, origin_ref, folded, progress, created_at, expires_at)
    SELECT id, task, args, queue, priority, 'completed', 'completed', scheduled_at, attempt, snoozes, max_attempts,
           worker, started_at, finished_at, key, group_name, max_late, when_late, metadata, origin, origin_ref,
           folded, progress, created_at, finished_at + :retention::bigint
    FROM joined WHERE coalesce(id, 0) > 0)
SELECT coalesce(json_agg(ack), '[]')::text FROM joined WHERE coalesce(id, 0) = 0;

-- name: free_jobs
-- Those of these jobs that no other transaction holds just now.
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE id = ANY (:id::bigint[]) FOR UPDATE SKIP LOCKED) AS free;

-- name: record_attempts
INSERT INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error, traceback,
                           reason)
SELECT j.id, j.attempt, a->>3, j.scheduled_at, (a->>4)::bigint, (a->>5)::bigint, j.worker, a->>7, a->>8, a->>9
FROM json_array_elements(:acks::json) AS a JOIN oncue_job AS j ON j.id = (a->>0)::bigint
WHERE j.worker = :worker::bigint AND j.attempt = (a->>1)::int
ON CONFLICT (job, attempt) DO UPDATE SET outcome = excluded.outcome, scheduled_at = excluded.scheduled_at,
  started_at = excluded.started_at, finished_at = excluded.finished_at, worker = excluded.worker,
  error = excluded.error, traceback = excluded.traceback, reason = excluded.reason;

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

-- name: release_heads
-- Nobody waits here for a row that another transaction holds: its name goes to those that are to be released later.
WITH head AS MATERIALIZED (
  SELECT n AS name, (SELECT id FROM oncue_job WHERE blocked_by = n ORDER BY scheduled_at, id LIMIT 1) AS id
  FROM json_array_elements_text(:names::json) AS n
), free AS MATERIALIZED (
  SELECT id, blocked_by FROM oncue_job
  WHERE id = ANY (ARRAY(SELECT id FROM head)) AND blocked_by IS NOT NULL AND blocked_by <> 'restore'
  FOR UPDATE SKIP LOCKED
), later AS (
  INSERT INTO oncue_release (name)
  SELECT name FROM head WHERE id IS NOT NULL AND name NOT IN (SELECT blocked_by FROM free)
)
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL WHERE id = ANY (ARRAY(SELECT id FROM free));

-- name: release_some
-- Of those that wait behind a cap any may go on; what others hold beyond these is released later.
WITH free AS MATERIALIZED (
  SELECT id FROM oncue_job WHERE blocked_by = :name ORDER BY scheduled_at, id LIMIT :count::int FOR UPDATE SKIP LOCKED
), later AS (
  INSERT INTO oncue_release (name)
  SELECT :name FROM (SELECT FROM oncue_job WHERE blocked_by = :name LIMIT :count::int) AS waiting
  OFFSET (SELECT count(*) FROM free)
)
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL WHERE id = ANY (ARRAY(SELECT id FROM free));

-- name: release_later
INSERT INTO oncue_release (name) SELECT json_array_elements_text(:names::json);

-- name: lane_head
SELECT eligible_at, (key IS NOT NULL OR group_name IS NOT NULL OR task = ANY (:bound::text[]))::int
FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL AND queue = :queue AND priority = :priority::int
  AND task <> ALL (:unknown::text[])
ORDER BY eligible_at, id LIMIT 1;

-- name: take_releases
WITH taken AS (DELETE FROM oncue_release RETURNING name)
SELECT coalesce(json_agg(name), '[]')::text FROM taken;

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

-- name: extend_lease
UPDATE oncue_worker SET lease_until = :until::bigint, seen_at = :now::bigint
WHERE id = :worker::bigint AND lease_until >= 0;

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

-- name: add_worker
INSERT INTO oncue_worker (id, name, host, pid, queues, tasks, version, started_at, seen_at, lease_until)
VALUES (:id::bigint, :name, :host, :pid::int, :queues, :tasks, :version, :now::bigint, :now::bigint, :until::bigint);

-- name: give_up
-- Its lease's end becomes negative: from here on all that it does finds the lease lost. Unless it has just renewed it,
-- and only once what it is claiming just now is claimed.
UPDATE oncue_worker SET lease_until = -abs(lease_until)
WHERE id = (SELECT id FROM oncue_worker WHERE id = :worker::bigint AND lease_until < :before::bigint FOR UPDATE);

-- name: drop_worker
-- One that was given up stays while it has jobs, so that these are found.
DELETE FROM oncue_worker
WHERE id = :worker::bigint AND NOT EXISTS (SELECT 1 FROM oncue_job WHERE worker = :worker::bigint AND state = 'running');

-- name: workers
SELECT coalesce(json_agg(json_build_array(id, name, host, pid, queues, started_at, seen_at, lease_until,
         (SELECT count(*) FROM oncue_job WHERE worker = w.id AND state = 'running'), tasks, version,
         wake, wake_since) ORDER BY id),
         '[]')::text
FROM oncue_worker AS w;

-- name: jobs_of_worker
-- Those that no other transaction holds just now.
SELECT coalesce(json_agg(json_build_array(
         id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         coalesce(eligible_at, scheduled_at), claimed_at)), '[]')::text
FROM (SELECT * FROM oncue_job WHERE worker = :worker::bigint AND state = 'running' FOR UPDATE SKIP LOCKED) AS free;

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
INSERT INTO oncue_job (id, task, args, queue, priority, scheduled_at, eligible_at, attempt, snoozes, max_attempts, key,
                       group_name, max_late, when_late, metadata, folded, created_at)
SELECT id, task, args, queue, priority, :due::bigint, :due::bigint, attempt, snoozes, attempt - snoozes + max_attempts,
       key, group_name, max_late, when_late, metadata, folded, created_at
FROM oncue_finished WHERE id = :id::bigint AND state <> 'completed'
ON CONFLICT DO NOTHING;

-- name: look_again
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id = :id::bigint AND eligible_at IS NULL AND blocked_by <> 'restore';

-- name: record_finished
INSERT INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error, traceback,
                           reason)
SELECT id, attempt, outcome, scheduled_at, coalesce(started_at, finished_at), finished_at, worker, error, traceback,
       reason
FROM oncue_finished WHERE id = :id::bigint
ON CONFLICT (job, attempt) DO UPDATE SET outcome = excluded.outcome, scheduled_at = excluded.scheduled_at,
  started_at = excluded.started_at, finished_at = excluded.finished_at, worker = excluded.worker,
  error = excluded.error, traceback = excluded.traceback, reason = excluded.reason;

-- name: drop_history
DELETE FROM oncue_finished WHERE id = :id::bigint;

-- name: replace_result
UPDATE oncue_finished SET result = :result, reason = :reason
WHERE id = :id::bigint AND worker = :worker::bigint AND attempt = :attempt::int AND state = 'completed';

-- name: set_progress
UPDATE oncue_job SET progress = :progress WHERE id = :id::bigint AND worker = :worker::bigint AND attempt = :attempt::int;

-- name: prunable
-- The least one is the first of an index, whatever the statistics say.
SELECT coalesce((SELECT min(expires_at) FROM oncue_finished_rest) <= :now::bigint, false)
    OR coalesce((SELECT min(expires_at) FROM oncue_finished) <= :now::bigint - 172800000000, false)
    OR EXISTS (SELECT 1 FROM oncue_worker WHERE lease_until < :before::bigint)
    OR EXISTS (SELECT 1 FROM oncue_limit WHERE tat < :before::bigint AND backlog < :before::bigint)
    OR coalesce((SELECT min(minute) FROM oncue_minute) < :now::bigint - 604800000000, false);

-- name: prune_attempts
-- In partitions by day rows stay up to two days longer: by then most days were dropped whole, with no row deleted.
DELETE FROM oncue_attempt WHERE job = ANY (ARRAY(
  (SELECT id FROM oncue_finished_rest WHERE expires_at <= :now::bigint ORDER BY expires_at LIMIT :count::int)
  UNION ALL
  (SELECT id FROM oncue_finished WHERE expires_at <= :now::bigint - 172800000000 ORDER BY expires_at LIMIT :count::int)
  LIMIT :count::int));

-- name: prune_finished
DELETE FROM oncue_finished WHERE id = ANY (ARRAY(
  (SELECT id FROM oncue_finished_rest WHERE expires_at <= :now::bigint ORDER BY expires_at LIMIT :count::int)
  UNION ALL
  (SELECT id FROM oncue_finished WHERE expires_at <= :now::bigint - 172800000000 ORDER BY expires_at LIMIT :count::int)
  LIMIT :count::int));

-- name: prune_workers
DELETE FROM oncue_worker AS w WHERE lease_until < :before::bigint
  AND NOT EXISTS (SELECT 1 FROM oncue_job WHERE worker = w.id AND state = 'running');

-- name: prune_limits
DELETE FROM oncue_limit WHERE tat < :before::bigint AND backlog < :before::bigint;

-- name: stuck_names
-- From each name to the next one, so that a million jobs behind one name cost one step; "limit:" and "restore" follow.
WITH RECURSIVE n (name) AS (
  (SELECT blocked_by FROM oncue_job WHERE blocked_by < 'limit:' ORDER BY blocked_by LIMIT 1)
  UNION ALL
  SELECT (SELECT blocked_by FROM oncue_job WHERE blocked_by > n.name AND blocked_by < 'limit:'
          ORDER BY blocked_by LIMIT 1)
  FROM n WHERE n.name IS NOT NULL)
SELECT coalesce(json_agg(name), '[]')::text FROM n WHERE name IS NOT NULL;

-- name: list_jobs
SELECT coalesce(json_agg(j), '[]')::text FROM (
  SELECT id, json_build_object(
    'id', id, 'state', state, 'outcome', NULL, 'task', task, 'args', args::json, 'queue', queue, 'priority', priority,
    'scheduled_at', scheduled_at, 'eligible_at', eligible_at, 'blocked_by', blocked_by, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', claimed_at,
    'finished_at', NULL, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', metadata::json, 'origin', origin, 'origin_ref', origin_ref, 'folded', folded,
    'progress', progress::json, 'created_at', created_at, 'cancel', cancel, 'result', NULL, 'error', NULL,
    'traceback', NULL, 'reason', NULL) AS j
  FROM oncue_job WHERE {where}
  UNION ALL
  SELECT id, json_build_object(
    'id', id, 'state', state, 'outcome', outcome, 'task', task, 'args', args::json, 'queue', queue,
    'priority', priority, 'scheduled_at', scheduled_at, 'eligible_at', NULL, 'blocked_by', NULL, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', started_at,
    'finished_at', finished_at, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', metadata::json, 'origin', origin, 'origin_ref', origin_ref, 'folded', folded,
    'progress', progress::json, 'created_at', created_at, 'cancel', 0, 'result', result::json, 'error', error,
    'traceback', traceback, 'reason', reason) AS j
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
SELECT coalesce(json_agg(json_build_object(
  'attempt', attempt, 'outcome', outcome, 'scheduled_at', scheduled_at, 'started_at', started_at,
  'finished_at', finished_at, 'worker', worker, 'error', error, 'traceback', traceback, 'reason', reason)), '[]')::text
FROM (SELECT * FROM oncue_attempt WHERE job = :id::bigint ORDER BY attempt) AS a;

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

-- name: set_queue
INSERT INTO oncue_queue AS q (name, paused, paused_at)
VALUES (:name, :paused::int, CASE WHEN :paused::int = 1 THEN :now::bigint END)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused,
  paused_at = CASE WHEN excluded.paused = 1 THEN coalesce(q.paused_at, excluded.paused_at) END;

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

-- name: ping
INSERT INTO oncue_counter (name, value) VALUES ('ping', 1)
ON CONFLICT (name) DO UPDATE SET value = oncue_counter.value + 1;

-- name: hold_due
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore', state = 'scheduled', worker = NULL, holds = 0
WHERE scheduled_at <= :now::bigint OR state = 'running';

-- name: mark_restored
INSERT INTO oncue_counter (name, value) VALUES ('restored', :now::bigint)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: unmark_restored
DELETE FROM oncue_counter WHERE name = 'restored';

-- name: hold_made
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore'
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json))) AND origin IS NOT NULL
  AND scheduled_at <= (SELECT value FROM oncue_counter WHERE name = 'restored');

-- name: release_held
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL WHERE blocked_by = 'restore';

-- name: schedules
SELECT coalesce(json_agg(json_build_array(name, task, args, expression, timezone, options::json, next_at, last_at,
         paused, missed, created_at) ORDER BY name), '[]')::text
FROM oncue_schedule;

-- name: save_schedule
INSERT INTO oncue_schedule (name, task, args, expression, timezone, options, next_at, created_at)
VALUES (:name, :task, :args, :expression, :timezone, :options, :next_at::bigint, :now::bigint)
ON CONFLICT (name) DO UPDATE SET task = excluded.task, args = excluded.args, expression = excluded.expression,
  timezone = excluded.timezone, options = excluded.options, next_at = excluded.next_at;

-- name: drop_schedule
DELETE FROM oncue_schedule WHERE name = :name;

-- name: advance_schedule
UPDATE oncue_schedule SET next_at = :following::bigint, last_at = :fired::bigint, missed = missed + :dropped::int
WHERE name = :name AND next_at IS NOT DISTINCT FROM :nominal::bigint AND paused = 0;

-- name: known_fires
SELECT coalesce(json_agg(origin_ref), '[]')::text FROM (
  SELECT origin_ref FROM oncue_job
  WHERE origin = :origin AND origin_ref = ANY (ARRAY(SELECT value FROM json_array_elements_text(:refs::json)))
  UNION ALL
  SELECT origin_ref FROM oncue_finished
  WHERE origin = :origin AND origin_ref = ANY (ARRAY(SELECT value FROM json_array_elements_text(:refs::json)))) AS f;

-- name: pause_schedule
UPDATE oncue_schedule SET paused = :paused::int, next_at = :next_at::bigint WHERE name = :name;

-- name: source_lock
SELECT pg_advisory_xact_lock(hashtextextended('oncue_source:' || :source, 0));

-- name: source_memory
SELECT coalesce(json_agg(json_build_array(row_key::json, due, job, unsettled)), '[]')::text FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: source_jobs
-- Locked, so that none is claimed, and run for its old due time, while it is moved to another.
SELECT coalesce(json_agg(json_build_array(
         j.id, j.state, j.attempt, j.key, j.group_name, j.scheduled_at,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = j.id AND t.attempt = 1), j.scheduled_at),
         j.origin, j.origin_ref, j.task, j.args, j.queue, j.priority)), '[]')::text
FROM (SELECT * FROM oncue_job WHERE id = ANY (ARRAY(
  -- OFFSET 0: each prefix is looked up by the index. Else all jobs of the source are compared with each prefix.
  SELECT o.id FROM json_array_elements_text(:prefixes::json) AS p (value) CROSS JOIN LATERAL (
    SELECT id FROM oncue_job
    WHERE origin = :origin AND origin_ref >= p.value || ',' AND origin_ref < p.value || '-' OFFSET 0) AS o
  UNION
  SELECT id FROM oncue_job
  WHERE key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND key IS NOT NULL AND attempt = 0
  UNION
  SELECT id FROM oncue_job
  WHERE key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND key IS NOT NULL AND attempt > 0
  )) ORDER BY id FOR UPDATE) AS j;

-- name: outcomes_of
SELECT coalesce(json_agg(json_build_array(id, outcome)), '[]')::text FROM oncue_finished
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)));

-- name: source_done_refs
SELECT coalesce(json_agg(json_build_array(origin_ref, id)), '[]')::text FROM oncue_finished
WHERE origin = :origin AND origin_ref = ANY (ARRAY(SELECT value FROM json_array_elements_text(:refs::json)))
  AND outcome NOT IN ('skipped', 'withdrawn');

-- name: source_done_keys
SELECT coalesce(json_agg(json_build_array(
         f.key, f.id,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = f.id AND t.attempt = 1), f.scheduled_at)
         )), '[]')::text
FROM oncue_finished AS f
WHERE f.key = ANY (ARRAY(SELECT value FROM json_array_elements_text(:keys::json))) AND f.key IS NOT NULL
  AND f.origin IS NULL;

-- name: source_live
SELECT coalesce(json_agg(origin_ref::json), '[]')::text FROM oncue_job
WHERE origin = :origin AND state = 'scheduled' AND created_at < :before::bigint;

-- name: source_move
UPDATE oncue_job
SET scheduled_at = m.due, origin_ref = coalesce(m.ref, origin_ref), holds = 0,
    eligible_at = CASE WHEN blocked_by = 'restore' THEN NULL ELSE m.due END,
    blocked_by = CASE WHEN blocked_by = 'restore' THEN blocked_by END
FROM (SELECT (value ->> 0)::bigint AS id, (value ->> 1)::bigint AS due, value ->> 2 AS ref
      FROM json_array_elements(:moves::json)) AS m
WHERE oncue_job.id = m.id AND state = 'scheduled';

-- name: source_remember
-- Entries of (row key as JSON text, due, raw due value as JSON text, job, unsettled), each key once.
INSERT INTO oncue_source_row AS r (source, row_key, due, raw, job, unsettled)
SELECT :source, value ->> 0, (value ->> 1)::bigint, value ->> 2, (value ->> 3)::bigint, (value ->> 4)::int
FROM json_array_elements(:entries::json)
ON CONFLICT (source, row_key) DO UPDATE SET due = excluded.due, raw = excluded.raw, job = excluded.job,
  unsettled = excluded.unsettled
WHERE (r.due, r.raw, r.job, r.unsettled)
  IS DISTINCT FROM (excluded.due, excluded.raw, excluded.job, excluded.unsettled);

-- name: source_forget
DELETE FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: source_forget_gone
DELETE FROM oncue_source_row
WHERE source = :source AND row_key = ANY (ARRAY(
  SELECT oncue_r.row_key FROM oncue_source_row AS oncue_r
  WHERE oncue_r.source = :source AND oncue_r.due < :before::bigint AND {gone}
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = oncue_r.job) LIMIT :most::int));

-- name: source_unsettle
UPDATE oncue_source_row SET unsettled = :unsettled::int
WHERE source = :source AND row_key = (:row::json -> 0)::text AND due = :due::bigint AND job = :job::bigint
  AND unsettled <> :unsettled::int;

-- name: source_unsettled
SELECT unsettled FROM oncue_source_row
WHERE source = :source AND row_key = (:row::json -> 0)::text AND due = :due::bigint AND job = :job::bigint;

-- name: source_listed
INSERT INTO oncue_source AS s (name, app, listed_at) VALUES (:name, '', :listed::bigint)
ON CONFLICT (name) DO UPDATE SET listed_at = excluded.listed_at WHERE s.listed_at <= excluded.listed_at;

-- name: source_changes
SELECT coalesce(json_agg(json_build_array(source, row_key::json)), '[]')::text FROM (
  SELECT DISTINCT source, row_key
  FROM (SELECT source, row_key FROM oncue_source_change ORDER BY id LIMIT 5000) AS c) AS d;

-- name: source_changed
SELECT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = :source);

-- name: note_change
-- Always a row of its own: where two writers shared one, the second would wait for the first, or its note would go
-- with the first one's. A note that nobody took for a minute stands for later ones too, so that they don't pile up.
INSERT INTO oncue_source_change (source, row_key, noted_at)
SELECT {source}, to_json({id})::text, {now}
WHERE {id} IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM oncue_source_change
                  WHERE source = {source} AND row_key = to_json({id})::text AND noted_at < {now} - 60000000);

-- name: note_rows
INSERT INTO oncue_source_change (source, row_key, noted_at)
SELECT :source, value::text, (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint
FROM json_array_elements(:keys::json);

-- name: drop_changes
DELETE FROM oncue_source_change WHERE source = :source;

-- name: drop_some_changes
DELETE FROM oncue_source_change
WHERE source = :source AND row_key = ANY (ARRAY(SELECT value::text FROM json_array_elements(:keys::json)));

-- name: save_source
INSERT INTO oncue_source AS s (name, app, swept_at, made, moved, cancelled, unreadable, drift)
VALUES (:name, :app, :swept_at::bigint, :made::bigint, :moved::bigint, :cancelled::bigint, :unreadable::bigint,
        :drift)
ON CONFLICT (name) DO UPDATE SET app = excluded.app, swept_at = excluded.swept_at, made = s.made + excluded.made,
  moved = s.moved + excluded.moved, cancelled = s.cancelled + excluded.cancelled, unreadable = excluded.unreadable,
  drift = excluded.drift;

-- name: sources
SELECT coalesce(json_agg(json_build_array(name, app, swept_at, made, moved, cancelled, unreadable, drift::json)
                         ORDER BY name), '[]')::text FROM oncue_source;

-- name: adopt
-- In their order, so that two who adopt the same jobs wait for each other instead of for ever.
INSERT INTO oncue_adopted (queue, job_id, timestamp, job, expires)
SELECT :queue, value ->> 0, (value ->> 1)::bigint, 0, (value ->> 2)::bigint
FROM json_array_elements(:jobs::json) ORDER BY (value ->> 0) COLLATE "C", (value ->> 1)::bigint
ON CONFLICT (queue, job_id, timestamp) DO NOTHING;

-- name: adopted
SELECT coalesce(json_agg(json_build_array(a.job_id, a.timestamp, a.job)), '[]')::text
FROM json_array_elements(:jobs::json) AS j CROSS JOIN LATERAL (
  SELECT * FROM oncue_adopted
  WHERE queue = :queue AND job_id = j ->> 0 AND timestamp = (j ->> 1)::bigint OFFSET 0) AS a;

-- name: adopted_as
UPDATE oncue_adopted SET job = (j ->> 2)::bigint FROM json_array_elements(:jobs::json) AS j
WHERE queue = :queue AND job_id = j ->> 0 AND timestamp = (j ->> 1)::bigint;

-- name: adopted_waiting
SELECT coalesce(json_agg(json_build_array(id, key, group_name)), '[]')::text FROM (
  SELECT id, key, group_name FROM oncue_job
  WHERE origin = :origin AND origin_ref = :ref AND state = 'scheduled' AND attempt = 0 FOR UPDATE) AS found;

-- name: disown
DELETE FROM oncue_adopted WHERE queue = :queue AND job_id = :id AND timestamp = :timestamp::bigint;

-- name: forget_adopted
DELETE FROM oncue_adopted WHERE queue = :queue AND expires <= :now::bigint AND (job_id, timestamp) IN (
  SELECT job_id, timestamp FROM oncue_adopted WHERE queue = :queue AND expires <= :now::bigint LIMIT :count::int);
