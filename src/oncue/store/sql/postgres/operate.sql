-- Named queries of the operator's view, in the same order in every dialect.

-- name: add_audit
INSERT INTO oncue_audit (at, who, action, target, count, detail, request)
VALUES (:at::bigint, :who::text, :action::text, :target::text, :count::bigint, :detail::text, :request::text)
ON CONFLICT DO NOTHING;

-- name: settle_audit
UPDATE oncue_audit SET target = :target::text, count = :count::bigint, detail = :detail::text
WHERE request = :request::text;

-- name: audit_of_request
SELECT json_build_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count,
                         'detail', detail)::text
FROM oncue_audit WHERE request = :request::text;

-- name: list_audit
SELECT coalesce(json_agg(a), '[]')::text FROM (
  SELECT json_build_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count,
                           'detail', detail) AS a
  FROM oncue_audit WHERE id < :before::bigint ORDER BY id DESC LIMIT :limit::int) AS found;

-- name: audit_of_target
SELECT coalesce(json_agg(a), '[]')::text FROM (
  SELECT json_build_object('id', id, 'at', at, 'who', who, 'action', action, 'target', target, 'count', count,
                           'detail', detail) AS a
  FROM oncue_audit WHERE target = :target::text AND id < :before::bigint ORDER BY id DESC LIMIT :limit::int) AS found;

-- name: prune_audit
DELETE FROM oncue_audit
WHERE id = ANY (ARRAY(SELECT id FROM oncue_audit ORDER BY id LIMIT :limit::int)) AND at < :before::bigint;

-- name: add_token
INSERT INTO oncue_token (name, roles, hash, created_at, expires_at)
VALUES (:name::text, :roles::text, :hash::text, :now::bigint, :expires_at::bigint)
ON CONFLICT DO NOTHING;

-- name: tokens
SELECT coalesce(json_agg(t), '[]')::text FROM (
  SELECT json_build_object('id', id, 'name', name, 'roles', roles::json, 'created_at', created_at,
                           'expires_at', expires_at, 'revoked_at', revoked_at) AS t
  FROM oncue_token ORDER BY name) AS found;

-- name: token_of_hash
SELECT json_build_object('id', id, 'name', name, 'roles', roles::json, 'created_at', created_at,
                         'expires_at', expires_at, 'revoked_at', revoked_at)::text
FROM oncue_token WHERE hash = :hash::text;

-- name: revoke_token
UPDATE oncue_token SET revoked_at = :now::bigint WHERE name = :name::text AND revoked_at IS NULL;

-- name: pause_task
INSERT INTO oncue_task_pause (name, paused_at, who) VALUES (:name::text, :now::bigint, :who::text)
ON CONFLICT DO NOTHING;

-- name: resume_task
DELETE FROM oncue_task_pause WHERE name = :name::text;

-- name: park_paused
-- Out of the way of those that may start: else every claim would look at them, to leave them. Whoever resumes the task
-- meanwhile waits for this, or this finds no pause any more: nothing is parked for ever.
WITH pause AS MATERIALIZED (SELECT name FROM oncue_task_pause WHERE name = :name::text FOR SHARE),
due AS MATERIALIZED (
  SELECT id FROM oncue_job WHERE state = 'scheduled' AND eligible_at <= :until::bigint AND blocked_by IS NULL
    AND task = :name::text AND EXISTS (SELECT FROM pause) LIMIT :limit::int FOR UPDATE SKIP LOCKED)
UPDATE oncue_job SET blocked_by = 'pause:' || :name::text, eligible_at = NULL FROM due WHERE oncue_job.id = due.id;

-- name: unpark_paused
UPDATE oncue_job SET eligible_at = scheduled_at, blocked_by = NULL
WHERE id = ANY (ARRAY(SELECT id FROM oncue_job WHERE blocked_by = 'pause:' || :name::text LIMIT :limit::int));

-- name: paused_tasks
SELECT coalesce(json_agg(json_build_object('name', name, 'paused_at', paused_at, 'who', who) ORDER BY name),
                '[]')::text
FROM oncue_task_pause;

-- name: save_minutes
-- What a worker counted of a minute so far takes the place of what it had counted before.
INSERT INTO oncue_minute (minute, worker, task, started, completed, retried, discarded, skipped, ran_us, lateness)
SELECT (r->>0)::bigint, (r->>1)::bigint, r->>2, (r->>3)::bigint, (r->>4)::bigint, (r->>5)::bigint, (r->>6)::bigint,
       (r->>7)::bigint, (r->>8)::bigint, r->>9
FROM json_array_elements(:rows::json) AS r
ON CONFLICT (minute, worker, task) DO UPDATE SET started = excluded.started, completed = excluded.completed,
  retried = excluded.retried, discarded = excluded.discarded, skipped = excluded.skipped, ran_us = excluded.ran_us,
  lateness = excluded.lateness;

-- name: minutes
SELECT coalesce(json_agg(json_build_array(minute, worker, task, started, completed, retried, discarded, skipped, ran_us,
                                          lateness) ORDER BY minute), '[]')::text
FROM oncue_minute WHERE minute >= :after::bigint AND minute < :until::bigint;

-- name: prune_minutes
DELETE FROM oncue_minute WHERE minute < :before::bigint;

-- name: id_span
SELECT json_build_array(
  (SELECT min(id) FROM (SELECT min(id) AS id FROM oncue_job UNION ALL SELECT min(id) FROM oncue_finished) AS least),
  (SELECT max(id) FROM (SELECT max(id) AS id FROM oncue_job UNION ALL SELECT max(id) FROM oncue_finished) AS most))::text;

-- name: waiting_ids
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE id < :before::bigint AND id >= :from::bigint AND {where}
  ORDER BY id DESC LIMIT :limit::int) AS found;

-- name: finished_ids
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_finished WHERE id < :before::bigint AND id >= :from::bigint AND {where}
  ORDER BY id DESC LIMIT :limit::int) AS found;

-- name: next_below
SELECT max(id) FROM (
  SELECT max(id) AS id FROM oncue_job WHERE id < :before::bigint AND :waiting::int = 1
  UNION ALL SELECT max(id) FROM oncue_finished WHERE id < :before::bigint AND :finished::int = 1) AS highest;

-- name: few_of_key
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE key = :key::text AND attempt = 0
  UNION ALL SELECT id FROM oncue_job WHERE key = :key::text AND attempt > 0
  UNION ALL SELECT id FROM oncue_finished WHERE key = :key::text LIMIT :most::int) AS found;

-- name: few_running
-- The ids of those that run; with more than a few, some of them.
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE state = 'running' LIMIT :most::int) AS found;

-- name: running_longest
-- What each worker runs, what began first: up to so many of each.
SELECT coalesce(json_agg(json_build_array(worker, id, task, began) ORDER BY worker, began, id), '[]')::text FROM (
  SELECT worker, id, task, began FROM (
    SELECT worker, id, task, greatest(claimed_at, coalesce(eligible_at, scheduled_at)) AS began,
           row_number() OVER (PARTITION BY worker ORDER BY claimed_at, id) AS nth
    FROM oncue_job WHERE state = 'running') AS each
  WHERE nth <= :most::int) AS found;

-- name: few_discarded
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_finished WHERE state = 'discarded' ORDER BY finished_at DESC LIMIT :most::int) AS found;

-- name: few_blocked
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM oncue_job WHERE blocked_by IS NOT NULL LIMIT :most::int) AS found;

-- name: few_due
-- Those that were to start by then and don't run, from lane to lane, and those that wait behind others.
WITH RECURSIVE {lane}
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM (
    SELECT f.id FROM lane, LATERAL (
      SELECT j.id FROM oncue_job AS j
      WHERE j.state = 'scheduled' AND j.eligible_at <= :until::bigint AND j.queue = lane.queue
        AND j.priority = lane.priority ORDER BY j.eligible_at, j.id LIMIT :most::int) AS f LIMIT :most::int) AS due
  UNION
  SELECT id FROM (
    SELECT id FROM oncue_job WHERE blocked_by IS NOT NULL AND scheduled_at <= :until::bigint
    LIMIT :most::int) AS blocked) AS found;

-- name: where_one_of
id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:one_of::json)));

-- name: where_due_after
scheduled_at >= :due_after::bigint;

-- name: where_due_before
scheduled_at < :due_before::bigint;

-- name: where_finished_after
finished_at >= :finished_after::bigint;

-- name: where_finished_before
finished_at < :finished_before::bigint;

-- name: where_late
state = 'scheduled' AND scheduled_at <= :late::bigint;

-- name: where_due
state = 'scheduled' AND eligible_at <= :due::bigint;

-- name: where_blocked
state = 'scheduled' AND blocked_by IS NOT NULL;

-- name: where_in_args
(args ILIKE :json::text OR metadata ILIKE :json::text OR key ILIKE :text::text
  OR attempt > 0 AND EXISTS (SELECT 1 FROM oncue_attempt AS a WHERE a.job = oncue_job.id AND a.error ILIKE :text::text));

-- name: where_in_finished
(args ILIKE :json::text OR metadata ILIKE :json::text OR key ILIKE :text::text OR error ILIKE :text::text
  OR reason ILIKE :text::text);

-- name: live_counts
-- Of what waits and runs, from lane to lane by the index.
WITH RECURSIVE {lane}
SELECT json_build_object(
  'scheduled', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at > :now::bigint AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0)::bigint,
  'due', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at <= :now::bigint AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0)::bigint,
  'late', coalesce((SELECT sum((SELECT count(*) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at <= :late::bigint AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane), 0)::bigint
    + (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL AND scheduled_at <= :late::bigint
       AND (eligible_at IS NULL OR eligible_at > :late::bigint)),
  'blocked', (SELECT count(*) FROM oncue_job WHERE blocked_by IS NOT NULL),
  'running', (SELECT count(*) FROM oncue_job WHERE state = 'running'),
  'discarded', (SELECT count(*) FROM oncue_finished WHERE state = 'discarded'),
  'next_due', (SELECT min((SELECT min(j.eligible_at) FROM oncue_job AS j WHERE j.state = 'scheduled'
    AND j.eligible_at IS NOT NULL AND j.queue = lane.queue AND j.priority = lane.priority)) FROM lane))::text;

-- name: final_counts
SELECT coalesce(json_object_agg(state, n), '{}')::text FROM (
  SELECT state, count(*) AS n FROM oncue_finished WHERE id >= :from::bigint AND id < :before::bigint GROUP BY state)
  AS found;

-- name: coming_bins
WITH RECURSIVE {lane}
SELECT coalesce(json_agg(json_build_array(bin, n)), '[]')::text FROM (
  SELECT f.bin, count(*) AS n FROM lane, LATERAL (
    SELECT (j.eligible_at - :after::bigint) / :width::bigint AS bin FROM oncue_job AS j
    WHERE j.state = 'scheduled' AND j.eligible_at > :after::bigint AND j.eligible_at < :until::bigint
      AND j.queue = lane.queue AND j.priority = lane.priority) AS f
  GROUP BY f.bin) AS bins;

-- name: groups_of_jobs
-- By queue and task: due, late, scheduled for later, blocked, running.
SELECT coalesce(json_agg(json_build_array(queue, task, due, late, later, blocked, running)), '[]')::text FROM (
  SELECT queue, task,
         count(*) FILTER (WHERE state = 'scheduled' AND eligible_at <= :now::bigint) AS due,
         count(*) FILTER (WHERE state = 'scheduled' AND scheduled_at <= :late::bigint) AS late,
         count(*) FILTER (WHERE state = 'scheduled' AND eligible_at > :now::bigint) AS later,
         count(*) FILTER (WHERE blocked_by IS NOT NULL) AS blocked,
         count(*) FILTER (WHERE state = 'running') AS running
  FROM oncue_job GROUP BY queue, task) AS found;

-- name: groups_of_discarded
SELECT coalesce(json_agg(json_build_array(queue, task, n)), '[]')::text FROM (
  SELECT queue, task, count(*) AS n FROM oncue_finished WHERE state = 'discarded' GROUP BY queue, task) AS found;

-- name: fires_of
SELECT coalesce(json_agg(json_build_array(id, origin_ref, scheduled_at)), '[]')::text FROM (
  SELECT id, origin_ref, scheduled_at FROM (
    SELECT id, origin_ref, scheduled_at FROM oncue_job WHERE origin = :origin::text
    UNION ALL
    SELECT id, origin_ref, scheduled_at FROM oncue_finished WHERE origin = :origin::text) AS fires
  ORDER BY scheduled_at DESC, id DESC LIMIT :limit::int) AS found;

-- name: states_of
SELECT coalesce(json_agg(json_build_array(id, state, attempt, eligible_at)), '[]')::text FROM (
  SELECT id, state, attempt, eligible_at FROM oncue_job
  WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)))
  UNION ALL
  SELECT id, state, attempt, NULL FROM oncue_finished
  WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)))) AS found;

-- name: newest_ids
SELECT coalesce(json_agg(id), '[]')::text FROM (
  SELECT id FROM (SELECT id FROM oncue_job WHERE id > :after::bigint ORDER BY id DESC LIMIT :limit::int) AS waiting
  UNION
  SELECT id FROM (SELECT id FROM oncue_finished WHERE id > :after::bigint ORDER BY id DESC LIMIT :limit::int) AS done)
  AS found;

-- name: last_errors
-- Of jobs between attempts: what the last one said.
SELECT coalesce(json_agg(json_build_array(job, error, reason)), '[]')::text FROM oncue_attempt AS a
WHERE job = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)))
  AND attempt = (SELECT max(attempt) FROM oncue_attempt AS b WHERE b.job = a.job);

-- name: find_by_ids
SELECT coalesce(json_agg(json_build_array(id, state, attempt, key, group_name)), '[]')::text FROM (
  SELECT * FROM oncue_job WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json)))
  ORDER BY id FOR UPDATE) AS found;

-- name: move_jobs
UPDATE oncue_job
SET scheduled_at = :due::bigint, eligible_at = :due::bigint, blocked_by = NULL, holds = 0,
    {first_due}
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json))) AND state = 'scheduled';

-- name: request_cancels
UPDATE oncue_job SET cancel = 1
WHERE id = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(:ids::json))) AND state = 'running';
