-- Jobs that were taken over from BullMQ.

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
