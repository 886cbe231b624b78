-- Named queries, in the same order in every dialect. Sets travel as one JSON text, so that a batch is one statement.

-- name: take_ids
UPDATE oncue_counter SET value = value + :count WHERE name = :name RETURNING value;

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
    when_late = j.value->>11, metadata = j.value->>12, blocked_by = NULL, origin = j.value->>13,
    origin_ref = j.value->>14
FROM json_each(:jobs) AS j
WHERE oncue_job.id = j.value->>0 AND attempt = 0;

-- name: fold_jobs
UPDATE oncue_job SET folded = folded + (f.value->>1) FROM json_each(:folds) AS f WHERE oncue_job.id = f.value->>0;

-- name: move_job
UPDATE oncue_job SET scheduled_at = :due, eligible_at = :due, blocked_by = NULL, holds = 0
WHERE id = :id AND state = 'scheduled';

-- name: finish_jobs
INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                            max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                            metadata, origin, origin_ref, folded, progress, created_at, result, error, traceback,
                            reason, expires_at)
WITH a (id, attempt, state, outcome, started_at, finished_at, result, error, traceback, reason, expires_at) AS (
  VALUES {rows}
)
SELECT j.id, j.task, j.args, j.queue, j.priority, a.state, a.outcome, j.scheduled_at, j.attempt, j.snoozes,
       j.max_attempts, j.worker, a.started_at, a.finished_at, j.key, j.group_name, j.max_late, j.when_late,
       j.metadata, j.origin, j.origin_ref, j.folded, j.progress, j.created_at, a.result, a.error, a.traceback,
       a.reason, a.expires_at
FROM a CROSS JOIN oncue_job AS j ON j.id = a.id
WHERE j.worker IS ? AND j.attempt = a.attempt;

-- name: drop_jobs
DELETE FROM oncue_job WHERE id IN (SELECT value FROM json_each(:ids)) AND worker IS :worker;

-- name: record_attempts
INSERT OR REPLACE INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error,
                                      traceback, reason)
SELECT j.id, j.attempt, a.value->>3, j.scheduled_at, a.value->>4, a.value->>5, j.worker, a.value->>7, a.value->>8,
       a.value->>9
FROM json_each(:acks) AS a CROSS JOIN oncue_job AS j ON j.id = a.value->>0
WHERE j.worker = :worker AND j.attempt = a.value->>1;

-- name: put_back
UPDATE oncue_job
SET state = 'scheduled', worker = NULL, claimed_at = NULL, blocked_by = NULL, scheduled_at = a.value->>10,
    eligible_at = a.value->>11, snoozes = snoozes + (a.value->>12), holds = a.value->>13
FROM json_each(:acks) AS a
WHERE oncue_job.id = a.value->>0 AND worker = :worker AND attempt = a.value->>1;

-- name: lost_claims
SELECT json_group_array(value->>0) FROM json_each(:acks) AS a
WHERE NOT EXISTS (SELECT 1 FROM oncue_job AS j
                  WHERE j.id = a.value->>0 AND j.worker = :worker AND j.attempt = a.value->>1);

-- name: release_heads
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id IN (SELECT (SELECT id FROM oncue_job WHERE blocked_by = n.value ORDER BY scheduled_at, id LIMIT 1)
             FROM json_each(:names) AS n);

-- name: release_some
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id IN (SELECT id FROM oncue_job WHERE blocked_by = :name ORDER BY scheduled_at, id LIMIT :count);

-- name: peek
WITH RECURSIVE {lane}
SELECT json_object(
  'lanes', (SELECT json_group_array(json_array(queue, priority, (
              SELECT eligible_at FROM oncue_job AS j
              WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = lane.queue
                AND j.priority = lane.priority ORDER BY eligible_at LIMIT 1), 1)) FROM lane),
  'lease_until', (SELECT lease_until FROM oncue_worker WHERE id = :worker),
  'others_until', (SELECT min(lease_until) FROM oncue_worker AS w WHERE id <> :worker
                   AND EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.worker = w.id AND j.state = 'running')),
  'next_fire', (SELECT min(next_at) FROM oncue_schedule WHERE paused = 0),
  'paused', (SELECT json_group_array(name) FROM oncue_queue WHERE paused = 1),
  'paused_tasks', (SELECT json_group_array(name) FROM oncue_task_pause),
  'cancel', (SELECT json_group_array(id) FROM oncue_job WHERE worker = :worker AND state = 'running' AND cancel = 1),
  'changed', EXISTS (SELECT 1 FROM oncue_source_change)
);

-- name: candidates
SELECT json_group_array(json_array(
         id, task, args, queue, priority, scheduled_at, attempt + 1, snoozes, max_attempts, key, group_name, holds,
         blocked_by, when_blocked, cancel, max_late, when_late, metadata, origin, origin_ref, created_at,
         eligible_at, :now))
FROM (SELECT * FROM oncue_job
      WHERE state = 'scheduled' AND eligible_at IS NOT NULL AND queue = :queue AND priority = :priority
        AND eligible_at <= :until AND task NOT IN (SELECT value FROM json_each(:except))
        AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
      ORDER BY eligible_at, id LIMIT :count);

-- name: claim_jobs
UPDATE oncue_job
SET state = 'running', attempt = attempt + 1, worker = :worker, claimed_at = :now, blocked_by = NULL,
    holds = group_name IS NOT NULL
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'scheduled';

-- name: park_jobs
UPDATE oncue_job SET blocked_by = p.value->>1, eligible_at = p.value->>2
FROM json_each(:parked) AS p WHERE oncue_job.id = p.value->>0 AND state = 'scheduled';

-- name: shift_waiting
UPDATE oncue_job SET eligible_at = eligible_at + :shift WHERE blocked_by = :name;

-- name: busy_groups
SELECT json_group_array(json_array(group_name, id)) FROM oncue_job
WHERE holds = 1 AND group_name IN (SELECT value FROM json_each(:groups));

-- name: group_heads
-- A job that waits for the started one of its key is no head: that one may wait for a place in this very group.
SELECT json_group_array(json_array(g.value, (
         SELECT id FROM oncue_job AS j WHERE group_name = g.value AND state = 'scheduled' AND holds = 0
         AND NOT (attempt = 0 AND key IS NOT NULL AND EXISTS (
           SELECT 1 FROM oncue_job AS s WHERE s.key = j.key AND s.key IS NOT NULL AND s.attempt > 0))
         ORDER BY scheduled_at, id LIMIT 1)))
FROM json_each(:groups) AS g;

-- name: started_keys
SELECT json_group_array(json_array(key, id)) FROM oncue_job
WHERE key IS NOT NULL AND attempt > 0 AND key IN (SELECT value FROM json_each(:keys));

-- name: buckets
SELECT json_group_array(json_array(name, tat, CASE WHEN EXISTS (
         SELECT 1 FROM oncue_job WHERE blocked_by = 'limit:' || name) THEN backlog ELSE 0 END))
FROM oncue_limit WHERE name IN (SELECT value FROM json_each(:names));

-- name: save_buckets
INSERT INTO oncue_limit (name, tat, backlog) SELECT value->>0, value->>1, value->>2 FROM json_each(:buckets) WHERE true
ON CONFLICT (name) DO UPDATE SET tat = excluded.tat, backlog = excluded.backlog;

-- name: running_counts
SELECT json_group_array(json_array(task, queue, n))
FROM (SELECT task, queue, count(*) AS n FROM oncue_job WHERE state = 'running' GROUP BY task, queue);

-- name: extend_lease
UPDATE oncue_worker SET lease_until = :until, seen_at = :now WHERE id = :worker;

-- name: next_in_lane
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at IS NOT NULL
  AND queue = :queue AND priority = :priority AND task NOT IN (SELECT value FROM json_each(:except))
  AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
ORDER BY eligible_at LIMIT 1;

-- name: lane_after
SELECT eligible_at FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :until
  AND queue = :queue AND priority = :priority AND task NOT IN (SELECT value FROM json_each(:except))
  AND (blocked_by IS NULL OR blocked_by NOT IN (SELECT value FROM json_each(:held)))
ORDER BY eligible_at LIMIT 1;

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

-- name: find_by_id
SELECT json_group_array(json_array(id, state, attempt, key, group_name)) FROM oncue_job WHERE id = :id;

-- name: find_by_key
SELECT json_group_array(json_array(id, state, attempt, key, group_name)) FROM (
  SELECT * FROM oncue_job WHERE key = :key AND key IS NOT NULL AND attempt = 0
  UNION ALL
  SELECT * FROM oncue_job WHERE key = :key AND key IS NOT NULL AND attempt > 0);

-- name: state_of
SELECT state FROM oncue_job WHERE id = :id UNION ALL SELECT state FROM oncue_finished WHERE id = :id;

-- name: request_cancel
UPDATE oncue_job SET cancel = 1 WHERE id = :id AND state = 'running';

-- name: restart_finished
INSERT INTO oncue_job (id, task, args, queue, priority, scheduled_at, eligible_at, attempt, snoozes, max_attempts, key,
                       group_name, max_late, when_late, metadata, folded, created_at)
SELECT id, task, args, queue, priority, :due, :due, attempt, snoozes, attempt - snoozes + max_attempts, key,
       group_name, max_late, when_late, metadata, folded, created_at
FROM oncue_finished WHERE id = :id AND state <> 'completed'
ON CONFLICT DO NOTHING;

-- name: look_again
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id = :id AND eligible_at IS NULL AND blocked_by <> 'restore';

-- name: record_finished
INSERT OR REPLACE INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error,
                                      traceback, reason)
SELECT id, attempt, outcome, scheduled_at, coalesce(started_at, finished_at), finished_at, worker, error, traceback,
       reason
FROM oncue_finished WHERE id = :id;

-- name: drop_history
DELETE FROM oncue_finished WHERE id = :id;

-- name: replace_result
UPDATE oncue_finished SET result = :result, reason = :reason
WHERE id = :id AND worker = :worker AND attempt = :attempt AND state = 'completed';

-- name: set_progress
UPDATE oncue_job SET progress = :progress WHERE id = :id AND worker = :worker AND attempt = :attempt;

-- name: prune_attempts
DELETE FROM oncue_attempt WHERE job IN (SELECT id FROM oncue_finished WHERE expires_at <= :now
                                        ORDER BY expires_at LIMIT :count);

-- name: prune_finished
DELETE FROM oncue_finished WHERE id IN (SELECT id FROM oncue_finished WHERE expires_at <= :now
                                        ORDER BY expires_at LIMIT :count);

-- name: prune_workers
DELETE FROM oncue_worker WHERE lease_until < :before AND id NOT IN (SELECT worker FROM oncue_job WHERE state = 'running');

-- name: prune_limits
DELETE FROM oncue_limit WHERE tat < :before AND backlog < :before;

-- name: stuck_names
SELECT json_group_array(blocked_by) FROM (
  SELECT DISTINCT blocked_by FROM oncue_job WHERE blocked_by IS NOT NULL AND eligible_at IS NULL);

-- name: list_jobs
SELECT json_group_array(json(j)) FROM (
  SELECT id, json_object(
    'id', id, 'state', state, 'outcome', NULL, 'task', task, 'args', json(args), 'queue', queue, 'priority', priority,
    'scheduled_at', scheduled_at, 'eligible_at', eligible_at, 'blocked_by', blocked_by, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', claimed_at,
    'finished_at', NULL, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', json(metadata), 'origin', origin, 'origin_ref', origin_ref, 'folded', folded,
    'progress', json(progress), 'created_at', created_at, 'cancel', cancel, 'result', NULL, 'error', NULL,
    'traceback', NULL, 'reason', NULL) AS j
  FROM oncue_job WHERE {where}
  UNION ALL
  SELECT id, json_object(
    'id', id, 'state', state, 'outcome', outcome, 'task', task, 'args', json(args), 'queue', queue,
    'priority', priority, 'scheduled_at', scheduled_at, 'eligible_at', NULL, 'blocked_by', NULL, 'attempt', attempt,
    'snoozes', snoozes, 'max_attempts', max_attempts, 'worker', worker, 'started_at', started_at,
    'finished_at', finished_at, 'key', key, 'group', group_name, 'max_late', max_late, 'when_late', when_late,
    'metadata', json(metadata), 'origin', origin, 'origin_ref', origin_ref, 'folded', folded,
    'progress', json(progress), 'created_at', created_at, 'cancel', 0, 'result', json(result), 'error', error,
    'traceback', traceback, 'reason', reason) AS j
  FROM oncue_finished WHERE {where}
  ORDER BY id DESC LIMIT :limit);

-- name: where_id
id = :id;

-- name: where_ids
id IN (SELECT value FROM json_each(:ids));

-- name: where_before
id < :before;

-- name: where_state
state IN (SELECT value FROM json_each(:state));

-- name: where_task
task = :task;

-- name: where_queue
queue = :queue;

-- name: where_key
key = :key;

-- name: where_group
group_name = :group;

-- name: gone
SELECT json_group_array(value) FROM json_each(:ids)
WHERE NOT EXISTS (SELECT 1 FROM oncue_job WHERE id = value);

-- name: attempts_of
SELECT json_group_array(json_object(
  'attempt', attempt, 'outcome', outcome, 'scheduled_at', scheduled_at, 'started_at', started_at,
  'finished_at', finished_at, 'worker', worker, 'error', error, 'traceback', traceback, 'reason', reason))
FROM (SELECT * FROM oncue_attempt WHERE job = :id ORDER BY attempt);

-- name: counts
SELECT json_object(
  'scheduled', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at > :now),
  'due', (SELECT count(*) FROM oncue_job WHERE state = 'scheduled' AND eligible_at <= :now),
  'blocked', (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL),
  'running', (SELECT count(*) FROM oncue_job WHERE state = 'running'),
  'completed', (SELECT count(*) FROM oncue_finished WHERE state = 'completed'),
  'discarded', (SELECT count(*) FROM oncue_finished WHERE state = 'discarded'),
  'cancelled', (SELECT count(*) FROM oncue_finished WHERE state = 'cancelled'),
  'next_due', (SELECT min(eligible_at) FROM oncue_job WHERE state = 'scheduled')
);

-- name: backlog
WITH RECURSIVE {lane},
  served (queue, priority) AS (
    SELECT queue, priority FROM lane
    WHERE queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))
  )
SELECT json_object(
  'remaining', (
    SELECT coalesce(sum((SELECT count(*) FROM oncue_job AS j
                         WHERE j.state = 'scheduled' AND j.eligible_at <= :now AND j.queue = served.queue
                           AND j.priority = served.priority
                           AND j.task NOT IN (SELECT name FROM oncue_task_pause))), 0) FROM served) + (
    SELECT count(*) FROM oncue_job
    WHERE blocked_by IS NOT NULL AND blocked_by <> 'restore' AND scheduled_at <= :now
      AND (eligible_at IS NULL OR eligible_at > :now)
      AND queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
      AND task NOT IN (SELECT name FROM oncue_task_pause)
      AND (:queues IS NULL OR queue IN (SELECT value FROM json_each(:queues)))),
  'next_due', (SELECT min(due) FROM (
    SELECT (SELECT eligible_at FROM oncue_job AS j
            WHERE j.state = 'scheduled' AND j.eligible_at IS NOT NULL AND j.queue = served.queue
              AND j.priority = served.priority AND j.task NOT IN (SELECT name FROM oncue_task_pause)
            ORDER BY eligible_at LIMIT 1) AS due FROM served
    UNION ALL SELECT min(next_at) FROM oncue_schedule WHERE paused = 0))
);

-- name: coming
WITH RECURSIVE {lane}
SELECT json_group_array(json_array(id, eligible_at))
FROM (SELECT j.id, j.eligible_at FROM lane CROSS JOIN oncue_job AS j
      WHERE j.state = 'scheduled' AND j.eligible_at > :after AND j.eligible_at <= :until
        AND j.queue = lane.queue AND j.priority = lane.priority
        AND j.task NOT IN (SELECT name FROM oncue_task_pause)
        AND lane.queue NOT IN (SELECT name FROM oncue_queue WHERE paused = 1)
        AND (:queues IS NULL OR lane.queue IN (SELECT value FROM json_each(:queues)))
      ORDER BY j.eligible_at, j.id LIMIT :limit);

-- name: set_queue
INSERT INTO oncue_queue AS q (name, paused, paused_at) VALUES (:name, :paused, CASE WHEN :paused = 1 THEN :now END)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused,
  paused_at = CASE WHEN excluded.paused = 1 THEN coalesce(q.paused_at, excluded.paused_at) END;

-- name: queues
SELECT json_group_array(json_object(
  'name', name, 'paused', json(CASE WHEN paused THEN 'true' ELSE 'false' END), 'paused_at', paused_at,
  'waiting', coalesce(waiting, 0), 'due', coalesce(due, 0), 'blocked', coalesce(blocked, 0),
  'running', coalesce(running, 0)))
FROM (
  SELECT name, max(paused) AS paused, max(paused_at) AS paused_at, sum(waiting) AS waiting, sum(due) AS due,
         sum(blocked) AS blocked, sum(running) AS running
  FROM (
    SELECT queue AS name, 0 AS paused, NULL AS paused_at,
           sum(state = 'scheduled' AND eligible_at > :now) AS waiting,
           sum(state = 'scheduled' AND eligible_at <= :now) AS due, sum(eligible_at IS NULL) AS blocked,
           sum(state = 'running') AS running
    FROM oncue_job GROUP BY queue
    UNION ALL SELECT name, paused, paused_at, 0, 0, 0, 0 FROM oncue_queue)
  GROUP BY name ORDER BY name);

-- name: blocked_names
SELECT json_group_array(json_array(blocked_by, n)) FROM (
  SELECT blocked_by, count(*) AS n FROM oncue_job
  WHERE blocked_by IS NOT NULL AND eligible_at IS NULL GROUP BY blocked_by ORDER BY blocked_by);

-- name: overdue
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_job WHERE state = 'scheduled' AND scheduled_at < :before ORDER BY scheduled_at, id LIMIT :limit);

-- name: ping
INSERT INTO oncue_counter (name, value) VALUES ('ping', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1;

-- name: hold_due
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore', state = 'scheduled', worker = NULL, holds = 0
WHERE scheduled_at <= :now OR state = 'running';

-- name: mark_restored
INSERT INTO oncue_counter (name, value) VALUES ('restored', :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: unmark_restored
DELETE FROM oncue_counter WHERE name = 'restored';

-- name: hold_made
UPDATE oncue_job SET eligible_at = NULL, blocked_by = 'restore'
WHERE id IN (SELECT value FROM json_each(:ids)) AND origin IS NOT NULL
  AND scheduled_at <= (SELECT value FROM oncue_counter WHERE name = 'restored');

-- name: release_held
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL WHERE blocked_by = 'restore';

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

-- name: source_lock
-- Whoever writes is alone already.
SELECT 1;

-- name: source_memory
SELECT json_group_array(json_array(row_key, due, job, unsettled)) FROM oncue_source_row
WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: source_jobs
SELECT json_group_array(json_array(
         j.id, j.state, j.attempt, j.key, j.group_name, j.scheduled_at,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = j.id AND t.attempt = 1), j.scheduled_at),
         j.origin, j.origin_ref, j.task, j.args, j.queue, j.priority))
FROM oncue_job AS j
WHERE j.id IN (
  SELECT o.id FROM json_each(:prefixes) AS p CROSS JOIN oncue_job AS o
    ON o.origin = :origin AND o.origin_ref >= p.value || ',' AND o.origin_ref < p.value || '-'
  UNION
  SELECT id FROM oncue_job WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt = 0
  UNION
  SELECT id FROM oncue_job WHERE key IN (SELECT value FROM json_each(:keys)) AND key IS NOT NULL AND attempt > 0);

-- name: outcomes_of
SELECT json_group_array(json_array(id, outcome)) FROM oncue_finished WHERE id IN (SELECT value FROM json_each(:ids));

-- name: source_done_refs
SELECT json_group_array(json_array(origin_ref, id)) FROM oncue_finished
WHERE origin = :origin AND origin_ref IN (SELECT value FROM json_each(:refs))
  AND outcome NOT IN ('skipped', 'withdrawn');

-- name: source_done_keys
SELECT json_group_array(json_array(
         f.key, f.id,
         coalesce((SELECT t.scheduled_at FROM oncue_attempt AS t WHERE t.job = f.id AND t.attempt = 1), f.scheduled_at)))
FROM oncue_finished AS f
WHERE f.key IN (SELECT value FROM json_each(:keys)) AND f.key IS NOT NULL AND f.origin IS NULL;

-- name: source_live
SELECT json_group_array(json(origin_ref)) FROM oncue_job
WHERE origin = :origin AND state = 'scheduled' AND created_at < :before;

-- name: source_move
UPDATE oncue_job
SET scheduled_at = m.value->>1, origin_ref = coalesce(m.value->>2, origin_ref), holds = 0,
    eligible_at = CASE WHEN blocked_by = 'restore' THEN NULL ELSE m.value->>1 END,
    blocked_by = CASE WHEN blocked_by = 'restore' THEN blocked_by END
FROM json_each(:moves) AS m WHERE oncue_job.id = m.value->>0 AND state = 'scheduled';

-- name: source_remember
INSERT INTO oncue_source_row (source, row_key, due, raw, job, unsettled) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (source, row_key) DO UPDATE SET due = excluded.due, raw = excluded.raw, job = excluded.job,
  unsettled = excluded.unsettled
WHERE (due, raw, job, unsettled) IS NOT (excluded.due, excluded.raw, excluded.job, excluded.unsettled);

-- name: source_forget
DELETE FROM oncue_source_row WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: source_forget_gone
DELETE FROM oncue_source_row
WHERE source = :source AND row_key IN (
  SELECT row_key FROM oncue_source_row AS r
  WHERE source = :source AND due < :before AND {gone}
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.id = r.job) LIMIT :most);

-- name: source_unsettle
UPDATE oncue_source_row SET unsettled = :unsettled
WHERE source = :source AND row_key = :row->>0 AND due = :due AND job = :job AND unsettled <> :unsettled;

-- name: source_unsettled
SELECT unsettled FROM oncue_source_row WHERE source = :source AND row_key = :row->>0 AND due = :due AND job = :job;

-- name: source_listed
INSERT INTO oncue_source (name, app, listed_at) VALUES (:name, '', :listed)
ON CONFLICT (name) DO UPDATE SET listed_at = excluded.listed_at WHERE listed_at <= excluded.listed_at;

-- name: source_changes
SELECT json_group_array(json_array(source, row_key)) FROM (SELECT source, row_key FROM oncue_source_change LIMIT 5000);

-- name: source_changed
SELECT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = :source);

-- name: note_change
INSERT INTO oncue_source_change (source, row_key)
SELECT {source}, {id}
WHERE {id} IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM oncue_source_change WHERE source = {source} AND row_key = {id});

-- name: note_rows
INSERT OR IGNORE INTO oncue_source_change (source, row_key) SELECT :source, value FROM json_each(:keys);

-- name: drop_changes
DELETE FROM oncue_source_change WHERE source = :source;

-- name: drop_some_changes
DELETE FROM oncue_source_change WHERE source = :source AND row_key IN (SELECT value FROM json_each(:keys));

-- name: save_source
INSERT INTO oncue_source (name, app, swept_at, made, moved, cancelled, unreadable, drift)
VALUES (:name, :app, :swept_at, :made, :moved, :cancelled, :unreadable, :drift)
ON CONFLICT (name) DO UPDATE SET app = excluded.app, swept_at = excluded.swept_at, made = made + excluded.made,
  moved = moved + excluded.moved, cancelled = cancelled + excluded.cancelled, unreadable = excluded.unreadable,
  drift = excluded.drift;

-- name: sources
SELECT json_group_array(json_array(name, app, swept_at, made, moved, cancelled, unreadable, json(drift)))
FROM (SELECT * FROM oncue_source ORDER BY name);

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
