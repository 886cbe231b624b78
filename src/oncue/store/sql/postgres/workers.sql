-- Workers: their leases, what they hold, how they hear.

-- name: extend_lease
-- What was held up on its way, behind a lock or in the network, takes nothing back of what was renewed since. A lease
-- that ends more than a minute after one that begins now was given by a clock that was set back since: nobody would take
-- over from a dead worker for so long.
UPDATE oncue_worker SET seen_at = :now::bigint, lease_until = CASE
  WHEN lease_until > :until::bigint + 60000000
    + greatest(0, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - :now::bigint) THEN :until::bigint
  ELSE greatest(lease_until, :until::bigint) END
WHERE id = :worker::bigint AND lease_until >= 0;

-- name: add_worker
INSERT INTO oncue_worker (id, name, host, pid, queues, tasks, version, started_at, seen_at, lease_until)
VALUES (:id::bigint, :name, :host, :pid::int, :queues, :tasks, :version, :now::bigint, :now::bigint, :until::bigint);

-- name: give_up
-- Its lease's end becomes negative: from here on all that it does finds the lease lost. Unless it has just renewed it,
-- and only once what it is claiming just now is claimed.
UPDATE oncue_worker SET lease_until = -abs(lease_until)
WHERE id = (SELECT id FROM oncue_worker WHERE id = :worker::bigint AND lease_until < :before::bigint FOR UPDATE);

-- name: drop_worker
-- One that was given up stays while it has jobs, so that these are found.
DELETE FROM oncue_worker
WHERE id = :worker::bigint AND NOT EXISTS (SELECT 1 FROM oncue_job WHERE worker = :worker::bigint AND state = 'running');

-- name: workers
SELECT coalesce(json_agg(json_build_array(id, name, host, pid, queues, started_at, seen_at, lease_until,
         (SELECT count(*) FROM oncue_job WHERE worker = w.id AND state = 'running'), tasks, version,
         wake, wake_since) ORDER BY id),
         '[]')::text
FROM oncue_worker AS w;

-- name: jobs_of_worker
-- Those that no other transaction holds just now.
SELECT coalesce(json_agg(json_build_array(
         id, task, args, queue, priority, scheduled_at, attempt, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         coalesce(eligible_at, scheduled_at), claimed_at)), '[]')::text
FROM (SELECT * FROM oncue_job WHERE worker = :worker::bigint AND state = 'running' FOR UPDATE SKIP LOCKED) AS free;

-- name: prune_workers
DELETE FROM oncue_worker AS w WHERE lease_until < :before::bigint
  AND NOT EXISTS (SELECT 1 FROM oncue_job WHERE worker = w.id AND state = 'running');

-- name: set_wake
-- Who asked it to connect anew was heard, once it works.
UPDATE oncue_worker SET wake = :wake::text, wake_since = :since::bigint,
  reconnect_at = CASE WHEN :wake::text IS NOT NULL THEN reconnect_at END
WHERE id = :worker::bigint;

-- name: reconnect_asked
SELECT reconnect_at FROM oncue_worker WHERE id = :worker::bigint;

-- name: ask_to_reconnect
UPDATE oncue_worker SET reconnect_at = :now::bigint WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)));
