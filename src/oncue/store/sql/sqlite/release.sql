-- What frees jobs that wait behind a group, a key or a limit.

-- name: release_heads
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id IN (SELECT (SELECT id FROM oncue_job WHERE blocked_by = n.value ORDER BY scheduled_at, id LIMIT 1)
             FROM json_each(:names) AS n);

-- name: release_some
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id IN (SELECT id FROM oncue_job WHERE blocked_by = :name ORDER BY scheduled_at, id LIMIT :count);

-- name: look_again
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id = :id AND eligible_at IS NULL AND blocked_by <> 'restore';
