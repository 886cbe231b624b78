-- What frees jobs that wait behind a group, a key or a limit.

-- name: free_jobs
-- Those of these jobs that no other transaction holds just now.
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE id = ANY (:id::bigint[]) FOR UPDATE SKIP LOCKED) AS free;

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

-- name: look_again
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id = :id::bigint AND eligible_at IS NULL AND blocked_by <> 'restore';
