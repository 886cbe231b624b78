-- Jobs that were taken over from BullMQ.

-- name: adopt
INSERT INTO oncue_adopted (queue, job_id, timestamp, job, expires)
SELECT :queue, value->>0, value->>1, 0, value->>2 FROM json_each(:jobs) WHERE true
ON CONFLICT (queue, job_id, timestamp) DO NOTHING;

-- name: adopted
SELECT json_group_array(json_array(a.job_id, a.timestamp, a.job))
FROM json_each(:jobs) AS j CROSS JOIN oncue_adopted AS a
WHERE a.queue = :queue AND a.job_id = j.value->>0 AND a.timestamp = j.value->>1;

-- name: adopted_as
UPDATE oncue_adopted SET job = j.value->>2 FROM json_each(:jobs) AS j
WHERE queue = :queue AND job_id = j.value->>0 AND timestamp = j.value->>1;

-- name: adopted_waiting
SELECT json_group_array(json_array(id, key, group_name)) FROM oncue_job
WHERE origin = :origin AND origin_ref = :ref AND state = 'scheduled' AND attempt = 0;

-- name: disown
DELETE FROM oncue_adopted WHERE queue = :queue AND job_id = :id AND timestamp = :timestamp;

-- name: forget_adopted
DELETE FROM oncue_adopted WHERE queue = :queue AND expires <= :now AND (job_id, timestamp) IN (
  SELECT job_id, timestamp FROM oncue_adopted WHERE queue = :queue AND expires <= :now LIMIT :count);
