-- What recurs.

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
