-- What recurs.

-- name: schedules
SELECT json_group_array(json_array(name, task, args, expression, timezone, json(options), next_at, last_at, paused,
         missed, created_at))
FROM (SELECT * FROM oncue_schedule ORDER BY name);

-- name: save_schedule
INSERT INTO oncue_schedule (name, task, args, expression, timezone, options, next_at, created_at)
VALUES (:name, :task, :args, :expression, :timezone, :options, :next_at, :now)
ON CONFLICT (name) DO UPDATE SET task = excluded.task, args = excluded.args, expression = excluded.expression,
  timezone = excluded.timezone, options = excluded.options, next_at = excluded.next_at;

-- name: drop_schedule
DELETE FROM oncue_schedule WHERE name = :name;

-- name: advance_schedule
UPDATE oncue_schedule SET next_at = :following, last_at = :fired, missed = missed + :dropped
WHERE name = :name AND next_at IS :nominal AND paused = 0;

-- name: known_fires
SELECT json_group_array(origin_ref) FROM (
  SELECT origin_ref FROM oncue_job
  WHERE origin = :origin AND origin_ref IN (SELECT value FROM json_each(:refs))
  UNION ALL
  SELECT origin_ref FROM oncue_finished
  WHERE origin = :origin AND origin_ref IN (SELECT value FROM json_each(:refs)));

-- name: pause_schedule
UPDATE oncue_schedule SET paused = :paused, next_at = :next_at WHERE name = :name;
