-- Storing jobs, and what their keys are in the way of.

-- name: insert_jobs
INSERT INTO oncue_job (id, task, args, queue, priority, scheduled_at, eligible_at, max_attempts, created_at, key,
                       group_name, max_late, when_late, metadata, origin, origin_ref, when_blocked)
VALUES {rows};

-- name: waiting_with_keys
SELECT json_group_array(json_array(id, key, scheduled_at, created_at, group_name)) FROM oncue_job
WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt = 0;

-- name: started_with_keys
SELECT json_group_array(json_array(id, key, scheduled_at)) FROM oncue_job
WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt > 0;

-- name: forget_replaced
DELETE FROM oncue_source_row
WHERE job = :id AND (source, row_key) = (
  SELECT substr(origin, 8), origin_ref->>0 FROM oncue_job WHERE id = :id AND attempt = 0 AND origin GLOB 'source:*');

-- name: replace_job
UPDATE oncue_job
SET task = j.value->>1, args = j.value->>2, queue = j.value->>3, priority = j.value->>4, scheduled_at = j.value->>5,
    eligible_at = j.value->>5, max_attempts = j.value->>6, group_name = j.value->>9, max_late = j.value->>10,
    when_late = j.value->>11, metadata = j.value->>12, blocked_by = NULL,
    first_due = coalesce(first_due, scheduled_at), origin = j.value->>13,
    origin_ref = j.value->>14
FROM json_each(:jobs) AS j
WHERE oncue_job.id = j.value->>0 AND attempt = 0;

-- name: fold_jobs
UPDATE oncue_job SET folded = folded + (f.value->>1) FROM json_each(:folds) AS f WHERE oncue_job.id = f.value->>0;

-- name: move_job
UPDATE oncue_job
SET scheduled_at = :due, eligible_at = :due, blocked_by = NULL, holds = 0,
    {first_due}
WHERE id = :id AND state = 'scheduled';

-- name: hold_made
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore'
WHERE id IN (SELECT value FROM json_each(:ids)) AND origin IS NOT NULL
  AND scheduled_at <= (SELECT value FROM oncue_counter WHERE name = 'restored');
