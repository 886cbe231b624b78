-- Storing jobs, and what their keys are in the way of.

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
    when_late = j->>11, metadata = j->>12, blocked_by = NULL,
    first_due = coalesce(first_due, scheduled_at), origin = j->>13, origin_ref = j->>14
FROM json_array_elements(:jobs::json) AS j
WHERE oncue_job.id = (j->>0)::bigint AND attempt = 0;

-- name: fold_jobs
UPDATE oncue_job SET folded = folded + (f->>1)::int
FROM json_array_elements(:folds::json) AS f WHERE oncue_job.id = (f->>0)::bigint;

-- name: move_job
UPDATE oncue_job
SET scheduled_at = :due::bigint, eligible_at = :due::bigint, blocked_by = NULL, holds = 0,
    {first_due}
WHERE id = :id::bigint AND state = 'scheduled';

-- name: hold_made
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore'
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json))) AND origin IS NOT NULL
  AND scheduled_at <= (SELECT value FROM oncue_counter WHERE name = 'restored');
