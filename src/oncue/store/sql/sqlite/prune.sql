-- Forgetting what is over, and finding what is stuck.

-- name: prune_attempts
DELETE FROM oncue_attempt WHERE job IN (SELECT id FROM oncue_finished WHERE expires_at <= :now
                                        ORDER BY expires_at LIMIT :count);

-- name: prune_finished
DELETE FROM oncue_finished WHERE id IN (SELECT id FROM oncue_finished WHERE expires_at <= :now
                                        ORDER BY expires_at LIMIT :count);

-- name: prune_limits
DELETE FROM oncue_limit WHERE tat < :before AND backlog < :before;

-- name: stuck_names
SELECT json_group_array(blocked_by) FROM (
  SELECT DISTINCT blocked_by FROM oncue_job WHERE blocked_by IS NOT NULL AND eligible_at IS NULL);
