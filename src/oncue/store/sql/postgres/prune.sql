-- Forgetting what is over, and finding what is stuck.

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
