-- Named queries of the operator's view, in the same order in every dialect.

-- name: add_audit
INSERT INTO oncue_audit (at, who, action, target, count, detail, request)
VALUES (:at, :who, :action, :target, :count, :detail, :request)
ON CONFLICT DO NOTHING;

-- name: settle_audit
UPDATE oncue_audit SET target = :target, count = :count, detail = :detail WHERE request = :request;

-- name: audit_of_request
SELECT json_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count, 'detail', detail)
FROM oncue_audit WHERE request = :request;

-- name: list_audit
SELECT json_group_array(json(a)) FROM (
  SELECT json_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count,
                     'detail', detail) AS a
  FROM oncue_audit WHERE id < :before ORDER BY id DESC LIMIT :limit);

-- name: audit_of_target
SELECT json_group_array(json(a)) FROM (
  SELECT json_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count,
                     'detail', detail) AS a
  FROM oncue_audit WHERE target = :target AND id < :before ORDER BY id DESC LIMIT :limit);

-- name: prune_audit
DELETE FROM oncue_audit WHERE id IN (SELECT id FROM oncue_audit ORDER BY id LIMIT :limit) AND at < :before;

-- name: add_token
INSERT INTO oncue_token (name, roles, hash, created_at, expires_at)
VALUES (:name, :roles, :hash, :now, :expires_at)
ON CONFLICT DO NOTHING;

-- name: tokens
SELECT json_group_array(json(t)) FROM (
  SELECT json_object('id', id, 'name', name, 'roles', json(roles), 'created_at', created_at,
                     'expires_at', expires_at, 'revoked_at', revoked_at) AS t
  FROM oncue_token ORDER BY name);

-- name: token_of_hash
SELECT json_object('id', id, 'name', name, 'roles', json(roles), 'created_at', created_at, 'expires_at', expires_at,
                   'revoked_at', revoked_at)
FROM oncue_token WHERE hash = :hash;

-- name: revoke_token
UPDATE oncue_token SET revoked_at = :now WHERE name = :name AND revoked_at IS NULL;

-- name: pause_task
INSERT INTO oncue_task_pause (name, paused_at, who) VALUES (:name, :now, :who) ON CONFLICT DO NOTHING;

-- name: resume_task
DELETE FROM oncue_task_pause WHERE name = :name;

-- name: park_paused
-- Out of the way of those that may start: else every claim would look at them, to leave them.
UPDATE oncue_job SET blocked_by = 'pause:' || :name, eligible_at = NULL
WHERE id IN (SELECT id FROM oncue_job WHERE state = 'scheduled' AND eligible_at <= :until AND blocked_by IS NULL
             AND task = :name LIMIT :limit)
  AND EXISTS (SELECT 1 FROM oncue_task_pause WHERE name = :name);

-- name: unpark_paused
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id IN (SELECT id FROM oncue_job WHERE blocked_by = 'pause:' || :name LIMIT :limit);

-- name: paused_tasks
SELECT json_group_array(json_object('name', name, 'paused_at', paused_at, 'who', who)) FROM oncue_task_pause;

-- name: save_minutes
-- What a worker counted of a minute so far takes the place of what it had counted before.
INSERT INTO oncue_minute (minute, worker, task, started, completed, retried, discarded, skipped, ran_us, lateness)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, value->>9
FROM json_each(:rows) WHERE true
ON CONFLICT (minute, worker, task) DO UPDATE SET started = excluded.started, completed = excluded.completed,
  retried = excluded.retried, discarded = excluded.discarded, skipped = excluded.skipped, ran_us = excluded.ran_us,
  lateness = excluded.lateness;

-- name: minutes
SELECT json_group_array(json_array(minute, worker, task, started, completed, retried, discarded, skipped, ran_us,
                                   lateness))
FROM oncue_minute WHERE minute >= :after AND minute < :until;

-- name: prune_minutes
DELETE FROM oncue_minute WHERE minute < :before;

-- name: id_span
SELECT json_array(
  (SELECT min(id) FROM (SELECT min(id) AS id FROM oncue_job UNION ALL SELECT min(id) FROM oncue_finished)),
  (SELECT max(id) FROM (SELECT max(id) AS id FROM oncue_job UNION ALL SELECT max(id) FROM oncue_finished)));

-- name: waiting_ids
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_job WHERE id < :before AND id >= :from AND {where} ORDER BY id DESC LIMIT :limit);

-- name: finished_ids
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_finished WHERE id < :before AND id >= :from AND {where} ORDER BY id DESC LIMIT :limit);

-- name: next_below
SELECT max(id) FROM (
  SELECT max(id) AS id FROM oncue_job WHERE id < :before AND :waiting = 1
  UNION ALL SELECT max(id) FROM oncue_finished WHERE id < :before AND :finished = 1);

-- name: few_of_key
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_job WHERE key = :key AND key IS NOT NULL AND attempt = 0
  UNION ALL SELECT id FROM oncue_job WHERE key = :key AND key IS NOT NULL AND attempt > 0
  UNION ALL SELECT id FROM oncue_finished WHERE key = :key AND key IS NOT NULL LIMIT :most);

-- name: few_running
-- The ids of those that run; with more than a few, some of them.
SELECT json_group_array(id) FROM (SELECT id FROM oncue_job WHERE state = 'running' LIMIT :most);

-- name: running_longest
-- What each worker runs, what began first: up to so many of each.
SELECT json_group_array(json_array(worker, id, task, began)) FROM (
  SELECT worker, id, task, began FROM (
    SELECT worker, id, task, max(claimed_at, coalesce(eligible_at, scheduled_at)) AS began,
           row_number() OVER (PARTITION BY worker ORDER BY claimed_at, id) AS nth
    FROM oncue_job WHERE state = 'running')
  WHERE nth <= :most ORDER BY worker, began, id);

-- name: few_discarded
SELECT json_group_array(id) FROM (
  SELECT id FROM oncue_finished WHERE state = 'discarded' ORDER BY finished_at DESC LIMIT :most);

-- name: few_blocked
SELECT json_group_array(id) FROM (SELECT id FROM oncue_job WHERE blocked_by IS NOT NULL LIMIT :most);

-- name: few_due
-- Those that were to start by then and don't run, from lane to lane, and those that wait behind others.
WITH RECURSIVE {lane}
SELECT json_group_array(id) FROM (
  SELECT id FROM (
    SELECT j.id FROM lane CROSS JOIN oncue_job AS j
    WHERE j.state = 'scheduled' AND j.eligible_at <= :until AND j.queue = lane.queue AND j.priority = lane.priority
    LIMIT :most)
  UNION
  SELECT id FROM (
    SELECT id FROM oncue_job WHERE blocked_by IS NOT NULL AND scheduled_at <= :until LIMIT :most));

-- name: where_one_of
id IN (SELECT value FROM json_each(:one_of));

-- name: where_due_after
scheduled_at >= :due_after;

-- name: where_due_before
scheduled_at < :due_before;

-- name: where_finished_after
finished_at >= :finished_after;

-- name: where_finished_before
finished_at < :finished_before;

-- name: where_late
state = 'scheduled' AND scheduled_at <= :late;

-- name: where_due
state = 'scheduled' AND eligible_at <= :due;

-- name: where_blocked
state = 'scheduled' AND blocked_by IS NOT NULL;

-- name: where_in_args
(args LIKE :json ESCAPE '\' OR metadata LIKE :json ESCAPE '\' OR key LIKE :text ESCAPE '\'
  OR attempt > 0 AND EXISTS (SELECT 1 FROM oncue_attempt AS a
                             WHERE a.job = oncue_job.id AND a.error LIKE :text ESCAPE '\'));

-- name: where_in_finished
(args LIKE :json ESCAPE '\' OR metadata LIKE :json ESCAPE '\' OR key LIKE :text ESCAPE '\'
  OR error LIKE :text ESCAPE '\' OR reason LIKE :text ESCAPE '\');

-- name: live_counts
-- Of what waits and runs, from lane to lane by the index.
WITH RECURSIVE {lane}
SELECT json_object(
  'scheduled', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at > :now AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0),
  'due', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at <= :now AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0),
  'late', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at <= :late AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0)
    + (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL AND scheduled_at <= :late
       AND (eligible_at IS NULL OR eligible_at > :late)),
  'blocked', (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL),
  'running', (SELECT count(*) FROM oncue_job WHERE state = 'running'),
  'discarded', (SELECT count(*) FROM oncue_finished WHERE state = 'discarded'),
  'next_due', (SELECT min((SELECT min(j.eligible_at) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at IS NOT NULL AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane));

-- name: final_counts
SELECT json_group_object(state, n) FROM (
  SELECT state, count(*) AS n FROM oncue_finished WHERE id >= :from AND id < :before GROUP BY state);

-- name: coming_bins
WITH RECURSIVE {lane}
SELECT json_group_array(json_array(bin, n)) FROM (
  SELECT (j.eligible_at - :after) / :width AS bin, count(*) AS n FROM lane CROSS JOIN oncue_job AS j
  WHERE j.state = 'scheduled' AND j.eligible_at > :after AND j.eligible_at < :until AND j.queue = lane.queue
    AND j.priority = lane.priority
  GROUP BY bin);

-- name: groups_of_jobs
-- By queue and task: due, late, scheduled for later, blocked, running.
SELECT json_group_array(json_array(queue, task, due, late, later, blocked, running)) FROM (
  SELECT queue, task, sum(state = 'scheduled' AND coalesce(eligible_at <= :now, 0)) AS due,
         sum(state = 'scheduled' AND scheduled_at <= :late) AS late,
         sum(state = 'scheduled' AND coalesce(eligible_at > :now, 0)) AS later, sum(blocked_by IS NOT NULL) AS blocked,
         sum(state = 'running') AS running
  FROM oncue_job GROUP BY queue, task);

-- name: groups_of_discarded
SELECT json_group_array(json_array(queue, task, n)) FROM (
  SELECT queue, task, count(*) AS n FROM oncue_finished WHERE state = 'discarded' GROUP BY queue, task);

-- name: fires_of
SELECT json_group_array(json_array(id, origin_ref, scheduled_at)) FROM (
  SELECT id, origin_ref, scheduled_at FROM (
    SELECT id, origin_ref, scheduled_at FROM oncue_job WHERE origin = :origin
    UNION ALL
    SELECT id, origin_ref, scheduled_at FROM oncue_finished WHERE origin = :origin)
  ORDER BY scheduled_at DESC, id DESC LIMIT :limit);

-- name: states_of
SELECT json_group_array(json_array(id, state, attempt, eligible_at)) FROM (
  SELECT id, state, attempt, eligible_at FROM oncue_job WHERE id IN (SELECT value FROM json_each(:ids))
  UNION ALL
  SELECT id, state, attempt, NULL FROM oncue_finished WHERE id IN (SELECT value FROM json_each(:ids)));

-- name: newest_ids
SELECT json_group_array(id) FROM (
  SELECT id FROM (SELECT id FROM oncue_job WHERE id > :after ORDER BY id DESC LIMIT :limit)
  UNION
  SELECT id FROM (SELECT id FROM oncue_finished WHERE id > :after ORDER BY id DESC LIMIT :limit));

-- name: last_errors
-- Of jobs between attempts: what the last one said.
SELECT json_group_array(json_array(job, error, reason)) FROM oncue_attempt AS a
WHERE job IN (SELECT value FROM json_each(:ids))
  AND attempt = (SELECT max(attempt) FROM oncue_attempt AS b WHERE b.job = a.job);

-- name: find_by_ids
SELECT json_group_array(json_array(id, state, attempt, key, group_name)) FROM (
  SELECT * FROM oncue_job WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id);

-- name: move_jobs
UPDATE oncue_job
SET scheduled_at = :due, eligible_at = :due, blocked_by = NULL, holds = 0,
    {first_due}
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'scheduled';

-- name: request_cancels
UPDATE oncue_job SET cancel = 1 WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'running';
