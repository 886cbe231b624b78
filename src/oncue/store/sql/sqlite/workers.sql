-- Workers: their leases, what they hold, how they hear.

-- name: extend_lease
-- What was held up behind a lock takes nothing back of what was renewed since. A lease that ends more than a minute after
-- this one was given by a clock that was set back since: nobody would take over from a dead worker for so long.
UPDATE oncue_worker SET seen_at = :now,
  lease_until = CASE WHEN lease_until > :until + 60000000 THEN :until ELSE max(lease_until, :until) END
WHERE id = :worker;

-- name: add_worker
INSERT INTO oncue_worker (id, name, host, pid, queues, tasks, version, started_at, seen_at, lease_until)
VALUES (:id, :name, :host, :pid, :queues, :tasks, :version, :now, :now, :until);

-- name: give_up
UPDATE oncue_worker SET lease_until = -abs(lease_until) WHERE id = :worker AND lease_until < :before;

-- name: drop_worker
DELETE FROM oncue_worker
WHERE id = :worker AND NOT EXISTS (SELECT 1 FROM oncue_job WHERE worker = :worker AND state = 'running');

-- name: workers
SELECT json_group_array(json_array(id, name, host, pid, queues, started_at, seen_at, lease_until,
         (SELECT count(*) FROM oncue_job WHERE worker = w.id AND state = 'running'), tasks, version,
         wake, wake_since))
FROM oncue_worker AS w;

-- name: jobs_of_worker
SELECT json_group_array(json_array(
         id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         coalesce(eligible_at, scheduled_at), claimed_at))
FROM oncue_job WHERE worker = :worker AND state = 'running';

-- name: prune_workers
DELETE FROM oncue_worker WHERE lease_until < :before AND id NOT IN (SELECT worker FROM oncue_job WHERE state = 'running');

-- name: set_wake
-- Who asked it to connect anew was heard, once it works.
UPDATE oncue_worker SET wake = :wake, wake_since = :since,
  reconnect_at = CASE WHEN :wake IS NOT NULL THEN reconnect_at END
WHERE id = :worker;

-- name: reconnect_asked
SELECT reconnect_at FROM oncue_worker WHERE id = :worker;

-- name: ask_to_reconnect
UPDATE oncue_worker SET reconnect_at = :now WHERE id IN (SELECT value FROM json_each(:ids));
