-- The outbox: messages on their way to a person. Named queries, in the same order in every dialect.

-- name: begin_send
-- Only as long as the job is this attempt's: one that was taken back sends nothing any more.
SELECT m.id FROM oncue_job AS j
JOIN oncue_message AS m ON m.ref = :ref::text
JOIN oncue_person AS p ON p.id = m.person
WHERE j.id = :job::bigint AND j.attempt = :attempt::bigint AND j.state = 'running'
FOR SHARE OF j FOR UPDATE OF m, p;

-- name: send_facts
SELECT json_build_object(
  'message', json_build_object(
    'id', m.id, 'ref', m.ref, 'channel', m.channel, 'person', m.person, 'chat', m.chat, 'step', m.step,
    'kind', m.kind, 'nth', m.nth, 'content', m.content, 'fallback', m.fallback, 'options', m.options,
    'state', m.state, 'attempt', m.attempt, 'due', m.due, 'sending_at', m.sending_at, 'unknown_at', m.unknown_at,
    'settled_at', m.settled_at, 'external_id', m.external_id, 'as_template', m.as_template, 'status', m.status,
    'status_at', m.status_at, 'code', m.code, 'reason', m.reason, 'resolution', m.resolution, 'resent', m.resent,
    'created_at', m.created_at),
  'person', json_build_object(
    'id', p.id, 'channel', p.channel, 'created_at', p.created_at, 'address', p.address, 'user_id', p.user_id,
    'name', p.name, 'timezone', p.timezone, 'heard_at', p.heard_at, 'opted_out_at', p.opted_out_at,
    'no_marketing_at', p.no_marketing_at, 'stopped', p.stopped, 'human_since', p.human_since,
    'wait_until', p.wait_until, 'refusals', p.refusals),
  'channel', (SELECT json_build_object(
    'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
    'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
    'disabled', c.disabled)
    FROM oncue_channel AS c WHERE c.name = m.channel),
  'paused', EXISTS (SELECT 1 FROM oncue_queue WHERE name = :queue::text AND paused = 1),
  'ahead', (SELECT json_build_object('ref', a.ref, 'state', a.state, 'due', a.due, 'unknown_at', a.unknown_at)
    FROM oncue_message AS a
    WHERE a.person = m.person AND a.id < m.id AND a.state IN ('queued', 'sending', 'unknown')
      AND a.settled_at IS NULL AND (a.state <> 'queued' OR a.due <= :now::bigint) ORDER BY a.id LIMIT 1),
  'answer_waits', EXISTS (SELECT 1 FROM oncue_job AS w WHERE w.group_name = :lane::text AND w.state = 'scheduled'
    AND w.holds = 0 AND w.task = :receive::text AND w.scheduled_at <= :now::bigint))::text
FROM oncue_message AS m JOIN oncue_person AS p ON p.id = m.person WHERE m.id = :id::bigint;

-- name: message_to_settle
SELECT json_build_object(
  'id', m.id, 'ref', m.ref, 'channel', m.channel, 'person', m.person, 'chat', m.chat, 'step', m.step,
  'kind', m.kind, 'nth', m.nth, 'content', m.content, 'fallback', m.fallback, 'options', m.options,
  'state', m.state, 'attempt', m.attempt, 'due', m.due, 'sending_at', m.sending_at, 'unknown_at', m.unknown_at,
  'settled_at', m.settled_at, 'external_id', m.external_id, 'as_template', m.as_template, 'status', m.status,
  'status_at', m.status_at, 'code', m.code, 'reason', m.reason, 'resolution', m.resolution, 'resent', m.resent,
  'created_at', m.created_at)::text
FROM oncue_message AS m WHERE m.id = :id::bigint
FOR UPDATE;

-- name: message_id_by_ref
SELECT id FROM oncue_message WHERE ref = :ref::text;

-- name: message_id_by_external
SELECT message FROM oncue_sent WHERE channel = :channel::text AND external_id = :external_id::text;

-- name: person_to_send
SELECT json_build_object(
  'id', p.id, 'channel', p.channel, 'created_at', p.created_at, 'address', p.address, 'user_id', p.user_id,
  'name', p.name, 'timezone', p.timezone, 'heard_at', p.heard_at, 'opted_out_at', p.opted_out_at,
  'no_marketing_at', p.no_marketing_at, 'stopped', p.stopped, 'human_since', p.human_since,
  'wait_until', p.wait_until, 'refusals', p.refusals)::text
FROM oncue_person AS p WHERE p.id = :id::bigint
FOR UPDATE;

-- name: channel_to_send
SELECT json_build_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled)::text
FROM oncue_channel AS c WHERE c.name = :name::text
FOR UPDATE;

-- name: refusals
SELECT json_build_array(p.refusals, coalesce((SELECT refusals FROM oncue_channel WHERE name = p.channel), 0))::text
FROM oncue_person AS p WHERE p.id = :person::bigint;

-- name: add_message
INSERT INTO oncue_message (ref, channel, person, chat, step, kind, nth, content, fallback, options, due, created_at,
                           expires_at)
VALUES (:ref::text, :channel::text, :person::bigint, :chat::bigint, :step::text, :kind::text, :nth::bigint,
        :content::text, :fallback::text, :options::text, :due::bigint, :now::bigint, :expires_at::bigint)
RETURNING id;

-- name: save_message
UPDATE oncue_message SET
  state = m->>'state', attempt = (m->>'attempt')::bigint, due = (m->>'due')::bigint,
  sending_at = (m->>'sending_at')::bigint, unknown_at = (m->>'unknown_at')::bigint,
  settled_at = (m->>'settled_at')::bigint, external_id = m->>'external_id',
  as_template = (m->>'as_template')::bigint, status = m->>'status', status_at = (m->>'status_at')::bigint,
  code = (m->>'code')::bigint, reason = m->>'reason', resolution = m->>'resolution', resent = (m->>'resent')::bigint
FROM (SELECT :message::json AS m) AS given
WHERE oncue_message.id = (m->>'id')::bigint;

-- name: save_channel_sends
-- What the intake keeps in the same row is left alone.
INSERT INTO oncue_channel (name, stopped, stopped_at, wait_until, refusals, disabled)
VALUES (:name::text, :stopped::text, :stopped_at::bigint, :wait_until::bigint, :refusals::bigint, :disabled::text)
ON CONFLICT (name) DO UPDATE SET stopped = excluded.stopped, stopped_at = excluded.stopped_at,
  wait_until = excluded.wait_until, refusals = excluded.refusals, disabled = excluded.disabled;

-- name: save_person_sends
UPDATE oncue_person SET stopped = :stopped::text, no_marketing_at = :no_marketing_at::bigint,
  wait_until = :wait_until::bigint, refusals = :refusals::bigint
WHERE id = :id::bigint;

-- name: queued_messages
SELECT coalesce(json_agg(json_build_array(id, ref, person, chat, kind)), '[]')::text FROM (
  SELECT * FROM oncue_message
  WHERE state = 'queued' AND person = :person::bigint AND (:chat::bigint IS NULL OR chat = :chat::bigint)
    AND (:step::text IS NULL OR step = :step::text) AND (:kind::text IS NULL OR kind = :kind::text)
  ORDER BY id FOR UPDATE) AS m;

-- name: chat_person
SELECT person FROM oncue_chat WHERE id = :chat::bigint;

-- name: skip_messages
UPDATE oncue_message SET state = 'skipped', reason = :reason::text, settled_at = :now::bigint
WHERE id IN (SELECT value::bigint FROM json_array_elements_text(:ids::json)) AND state = 'queued';

-- name: outbox_event
INSERT INTO oncue_event (person, chat, message, at, kind, text)
VALUES (:person::bigint, :chat::bigint, :message::bigint, :at::bigint, :kind::text, :text::text);

-- name: due_refs
SELECT coalesce(json_agg(ref), '[]')::text FROM oncue_message
WHERE person = :person::bigint AND state IN ('queued', 'sending', 'unknown') AND settled_at IS NULL
  AND due <= :now::bigint;

-- name: channel_refs
SELECT coalesce(json_agg(ref), '[]')::text FROM (
  SELECT ref FROM oncue_message
  WHERE channel = :channel::text AND state IN ('queued', 'sending', 'unknown') AND settled_at IS NULL
    AND due <= :now::bigint
  ORDER BY due, id LIMIT :count::bigint) AS m;

-- name: orphans
-- Messages that wait for a job which is gone.
SELECT coalesce(json_agg(json_build_array(ref, person, due)), '[]')::text FROM (
  SELECT m.ref, m.person, m.due FROM oncue_message AS m
  WHERE m.channel = :channel::text AND m.state IN ('queued', 'sending', 'unknown') AND m.settled_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.key = 'message-' || m.ref AND j.attempt = 0)
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.key = 'message-' || m.ref AND j.attempt > 0)
  ORDER BY m.person, m.id LIMIT :count::bigint) AS lost;

-- name: add_sent
INSERT INTO oncue_sent (channel, external_id, message, attempt, at)
VALUES (:channel::text, :external_id::text, :message::bigint, :attempt::bigint, :at::bigint)
ON CONFLICT (channel, external_id) DO NOTHING;

-- name: add_status
INSERT INTO oncue_status (channel, external_id, status, at, echo, message, code, reason, verdict, heard_at)
VALUES (:channel::text, :external_id::text, :status::text, :at::bigint, :echo::text, :message::bigint,
        :code::bigint, :reason::text, :verdict::text, :now::bigint)
ON CONFLICT (channel, external_id, status, at) DO NOTHING;

-- name: statuses_unmatched
SELECT coalesce(json_agg(json_build_object(
  'external_id', external_id, 'status', status, 'at', at, 'echo', echo, 'code', code, 'reason', coalesce(reason, ''),
  'verdict', verdict)), '[]')::text
FROM (SELECT * FROM oncue_status
      WHERE channel = :channel::text AND external_id = :external_id::text AND message IS NULL ORDER BY at) AS s;

-- name: match_statuses
UPDATE oncue_status SET message = :message::bigint
WHERE channel = :channel::text AND external_id = :external_id::text AND message IS NULL;

-- name: late_matches
-- Statuses that were stored at the very moment at which it became known whose they are.
SELECT coalesce(json_agg(json_build_array(external_id, message)), '[]')::text FROM (
  SELECT DISTINCT u.external_id, s.message FROM oncue_status AS u
  JOIN oncue_sent AS s ON s.channel = u.channel AND s.external_id = u.external_id
  WHERE u.channel = :channel::text AND u.message IS NULL AND u.heard_at > :since::bigint
  LIMIT :count::bigint) AS m;

-- name: came_to_nothing
-- Whether a message is known to have failed under this name.
SELECT coalesce(max(CASE status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END), 0) = 1
FROM oncue_status WHERE channel = :channel::text AND external_id = :external_id::text AND message = :message::bigint;

-- name: unheard_since
-- Messages that were accepted in that time, since when nothing at all was heard.
SELECT count(*) FROM oncue_message AS m
WHERE m.channel = :channel::text AND m.state = 'accepted' AND m.status IS NULL
  AND m.settled_at >= :since::bigint AND m.settled_at <= :until::bigint
  AND NOT EXISTS (SELECT 1 FROM oncue_channel AS c WHERE c.name = m.channel AND c.heard_at > m.settled_at);

-- name: unread_updates
-- Updates that came in by then, and whose statuses were not taken in yet; one that failed is tried again by ``soon``.
SELECT count(*) FROM (
  SELECT 1 FROM oncue_job WHERE state = 'scheduled' AND queue = :queue::text AND priority = :priority::int
    AND eligible_at <= :soon::bigint AND task = :task::text AND scheduled_at <= :until::bigint
  UNION ALL
  SELECT 1 FROM oncue_job WHERE state = 'running' AND task = :task::text AND scheduled_at <= :until::bigint) AS unread;

-- name: people_reached
-- Others to whom a template went in that time.
SELECT count(DISTINCT person) FROM (
  SELECT person FROM oncue_message
  WHERE channel = :channel::text AND state = 'accepted' AND settled_at > :since::bigint
    AND (as_template = 1 OR content::json->>'type' = 'template') AND person <> :person::bigint
  UNION ALL
  SELECT person FROM oncue_message
  WHERE channel = :channel::text AND state IN ('sending', 'unknown') AND sending_at > :since::bigint
    AND (as_template = 1 OR content::json->>'type' = 'template') AND person <> :person::bigint) AS m;

-- name: was_reached
SELECT count(*) FROM oncue_message
WHERE person = :person::bigint AND state = 'accepted' AND settled_at > :since::bigint
  AND (as_template = 1 OR content::json->>'type' = 'template');

-- name: duplicates
-- Messages that went out more than once; what the provider says it did not deliver does not count.
SELECT coalesce(json_agg(json_build_object(
  'message', message, 'ref', ref, 'person', person, 'chat', chat, 'step', step, 'kind', kind, 'copies', copies
)), '[]')::text FROM (
  SELECT m.id AS message, m.ref, m.person, m.chat, m.step, m.kind, count(*) AS copies
  FROM oncue_sent AS s JOIN oncue_message AS m ON m.id = s.message
  WHERE m.channel = :channel::text AND NOT (
    EXISTS (SELECT 1 FROM oncue_status AS f
            WHERE f.channel = s.channel AND f.external_id = s.external_id AND f.status = 'failed')
    AND NOT EXISTS (SELECT 1 FROM oncue_status AS d
                    WHERE d.channel = s.channel AND d.external_id = s.external_id
                      AND d.status IN ('delivered', 'read')))
  GROUP BY m.id, m.ref, m.person, m.chat, m.step, m.kind HAVING count(*) > 1 ORDER BY m.id) AS twice;

-- name: charge_limit
INSERT INTO oncue_limit AS l (name, tat, backlog) VALUES (:name::text, :now::bigint + :cost::bigint, 0)
ON CONFLICT (name) DO UPDATE SET tat = greatest(l.tat, :now::bigint) + :cost::bigint;
