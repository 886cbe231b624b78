-- The outbox: messages on their way to a person. Named queries, in the same order in every dialect.

-- name: begin_send
-- Only as long as the job is this attempt's: one that was taken back sends nothing any more.
SELECT m.id FROM oncue_job AS j
JOIN oncue_message AS m ON m.ref = :ref
JOIN oncue_person AS p ON p.id = m.person
WHERE j.id = :job AND j.attempt = :attempt AND j.state = 'running';

-- name: send_facts
SELECT json_object(
  'message', json_object(
    'id', m.id, 'ref', m.ref, 'channel', m.channel, 'person', m.person, 'chat', m.chat, 'step', m.step,
    'kind', m.kind, 'nth', m.nth, 'content', m.content, 'fallback', m.fallback, 'options', m.options,
    'state', m.state, 'attempt', m.attempt, 'due', m.due, 'sending_at', m.sending_at, 'unknown_at', m.unknown_at,
    'settled_at', m.settled_at, 'external_id', m.external_id, 'as_template', m.as_template, 'status', m.status,
    'status_at', m.status_at, 'code', m.code, 'reason', m.reason, 'resolution', m.resolution, 'resent', m.resent,
    'created_at', m.created_at),
  'person', json_object(
    'id', p.id, 'channel', p.channel, 'created_at', p.created_at, 'address', p.address, 'user_id', p.user_id,
    'name', p.name, 'timezone', p.timezone, 'heard_at', p.heard_at, 'opted_out_at', p.opted_out_at,
    'no_marketing_at', p.no_marketing_at, 'stopped', p.stopped, 'human_since', p.human_since,
    'wait_until', p.wait_until, 'refusals', p.refusals),
  'channel', (SELECT json_object(
    'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
    'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
    'disabled', c.disabled)
    FROM oncue_channel AS c WHERE c.name = m.channel),
  'paused', EXISTS (SELECT 1 FROM oncue_queue WHERE name = :queue AND paused = 1),
  'ahead', (SELECT json_object('ref', a.ref, 'state', a.state, 'due', a.due, 'unknown_at', a.unknown_at)
    FROM oncue_message AS a
    WHERE a.person = m.person AND a.id < m.id AND a.state IN ('queued', 'sending', 'unknown')
      AND a.settled_at IS NULL AND (a.state <> 'queued' OR a.due <= :now) ORDER BY a.id LIMIT 1),
  'answer_waits', EXISTS (SELECT 1 FROM oncue_job AS w WHERE w.group_name = :lane AND w.state = 'scheduled'
    AND w.holds = 0 AND w.task = :receive AND w.scheduled_at <= :now))
FROM oncue_message AS m JOIN oncue_person AS p ON p.id = m.person WHERE m.id = :id;

-- name: message_to_settle
SELECT json_object(
  'id', m.id, 'ref', m.ref, 'channel', m.channel, 'person', m.person, 'chat', m.chat, 'step', m.step,
  'kind', m.kind, 'nth', m.nth, 'content', m.content, 'fallback', m.fallback, 'options', m.options,
  'state', m.state, 'attempt', m.attempt, 'due', m.due, 'sending_at', m.sending_at, 'unknown_at', m.unknown_at,
  'settled_at', m.settled_at, 'external_id', m.external_id, 'as_template', m.as_template, 'status', m.status,
  'status_at', m.status_at, 'code', m.code, 'reason', m.reason, 'resolution', m.resolution, 'resent', m.resent,
  'created_at', m.created_at)
FROM oncue_message AS m WHERE m.id = :id;

-- name: message_id_by_ref
SELECT id FROM oncue_message WHERE ref = :ref;

-- name: message_id_by_external
SELECT message FROM oncue_sent WHERE channel = :channel AND external_id = :external_id;

-- name: person_to_send
SELECT json_object(
  'id', p.id, 'channel', p.channel, 'created_at', p.created_at, 'address', p.address, 'user_id', p.user_id,
  'name', p.name, 'timezone', p.timezone, 'heard_at', p.heard_at, 'opted_out_at', p.opted_out_at,
  'no_marketing_at', p.no_marketing_at, 'stopped', p.stopped, 'human_since', p.human_since,
  'wait_until', p.wait_until, 'refusals', p.refusals)
FROM oncue_person AS p WHERE p.id = :id;

-- name: channel_to_send
SELECT json_object(
  'name', c.name, 'stopped', c.stopped, 'stopped_at', c.stopped_at, 'wait_until', c.wait_until,
  'refusals', c.refusals, 'heard_at', c.heard_at, 'up_since', c.up_since, 'seen_at', c.seen_at,
  'disabled', c.disabled)
FROM oncue_channel AS c WHERE c.name = :name;

-- name: refusals
SELECT json_array(p.refusals, coalesce((SELECT refusals FROM oncue_channel WHERE name = p.channel), 0))
FROM oncue_person AS p WHERE p.id = :person;

-- name: add_message
INSERT INTO oncue_message (ref, channel, person, chat, step, kind, nth, content, fallback, options, due, created_at,
                           expires_at)
VALUES (:ref, :channel, :person, :chat, :step, :kind, :nth,
        :content, :fallback, :options, :due, :now, :expires_at)
RETURNING id;

-- name: save_message
UPDATE oncue_message SET
  state = m->>'state', attempt = m->>'attempt', due = m->>'due', sending_at = m->>'sending_at',
  unknown_at = m->>'unknown_at', settled_at = m->>'settled_at', external_id = m->>'external_id',
  as_template = m->>'as_template', status = m->>'status', status_at = m->>'status_at', code = m->>'code',
  reason = m->>'reason', resolution = m->>'resolution', resent = m->>'resent'
FROM (SELECT :message AS m) AS given
WHERE oncue_message.id = m->>'id';

-- name: save_channel_sends
-- What the intake keeps in the same row is left alone.
INSERT INTO oncue_channel (name, stopped, stopped_at, wait_until, refusals, disabled)
VALUES (:name, :stopped, :stopped_at, :wait_until, :refusals, :disabled)
ON CONFLICT (name) DO UPDATE SET stopped = excluded.stopped, stopped_at = excluded.stopped_at,
  wait_until = excluded.wait_until, refusals = excluded.refusals, disabled = excluded.disabled;

-- name: save_person_sends
UPDATE oncue_person SET stopped = :stopped, no_marketing_at = :no_marketing_at,
  wait_until = :wait_until, refusals = :refusals
WHERE id = :id;

-- name: queued_messages
SELECT json_group_array(json_array(id, ref, person, chat, kind)) FROM (
  SELECT * FROM oncue_message
  WHERE state = 'queued' AND person = :person AND (:chat IS NULL OR chat = :chat)
    AND (:step IS NULL OR step = :step) AND (:kind IS NULL OR kind = :kind)
  ORDER BY id) AS m;

-- name: chat_person
SELECT person FROM oncue_chat WHERE id = :chat;

-- name: skip_messages
UPDATE oncue_message SET state = 'skipped', reason = :reason, settled_at = :now
WHERE id IN (SELECT value FROM json_each(:ids)) AND state = 'queued';

-- name: outbox_event
INSERT INTO oncue_event (person, chat, message, at, kind, text)
VALUES (:person, :chat, :message, :at, :kind, :text);

-- name: due_refs
SELECT json_group_array(ref) FROM oncue_message
WHERE person = :person AND state IN ('queued', 'sending', 'unknown') AND settled_at IS NULL
  AND due <= :now;

-- name: channel_refs
SELECT json_group_array(ref) FROM (
  SELECT ref FROM oncue_message
  WHERE channel = :channel AND state IN ('queued', 'sending', 'unknown') AND settled_at IS NULL
    AND due <= :now
  ORDER BY due, id LIMIT :count) AS m;

-- name: orphans
-- Messages that wait for a job which is gone.
SELECT json_group_array(json_array(ref, person, due)) FROM (
  SELECT m.ref, m.person, m.due FROM oncue_message AS m
  WHERE m.channel = :channel AND m.state IN ('queued', 'sending', 'unknown') AND m.settled_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.key = 'message-' || m.ref AND j.attempt = 0)
    AND NOT EXISTS (SELECT 1 FROM oncue_job AS j WHERE j.key = 'message-' || m.ref AND j.attempt > 0)
  ORDER BY m.person, m.id LIMIT :count) AS lost;

-- name: add_sent
INSERT INTO oncue_sent (channel, external_id, message, attempt, at)
VALUES (:channel, :external_id, :message, :attempt, :at)
ON CONFLICT (channel, external_id) DO NOTHING;

-- name: add_status
INSERT INTO oncue_status (channel, external_id, status, at, echo, message, code, reason, verdict, heard_at)
VALUES (:channel, :external_id, :status, :at, :echo, :message,
        :code, :reason, :verdict, :now)
ON CONFLICT (channel, external_id, status, at) DO NOTHING;

-- name: statuses_unmatched
SELECT json_group_array(json_object(
  'external_id', external_id, 'status', status, 'at', at, 'echo', echo, 'code', code, 'reason', coalesce(reason, ''),
  'verdict', verdict))
FROM (SELECT * FROM oncue_status
      WHERE channel = :channel AND external_id = :external_id AND message IS NULL ORDER BY at) AS s;

-- name: match_statuses
UPDATE oncue_status SET message = :message
WHERE channel = :channel AND external_id = :external_id AND message IS NULL;

-- name: late_matches
-- Statuses that were stored at the very moment at which it became known whose they are.
SELECT json_group_array(json_array(external_id, message)) FROM (
  SELECT DISTINCT u.external_id, s.message FROM oncue_status AS u
  JOIN oncue_sent AS s ON s.channel = u.channel AND s.external_id = u.external_id
  WHERE u.channel = :channel AND u.message IS NULL AND u.heard_at > :since
  LIMIT :count) AS m;

-- name: came_to_nothing
-- Whether a message is known to have failed under this name.
SELECT coalesce(max(CASE status WHEN 'failed' THEN 1 WHEN 'delivered' THEN 2 WHEN 'read' THEN 2 ELSE 0 END), 0) = 1
FROM oncue_status WHERE channel = :channel AND external_id = :external_id AND message = :message;

-- name: unheard_since
-- Messages that were accepted in that time, since when nothing at all was heard.
SELECT count(*) FROM oncue_message AS m
WHERE m.channel = :channel AND m.state = 'accepted' AND m.status IS NULL
  AND m.settled_at >= :since AND m.settled_at <= :until
  AND NOT EXISTS (SELECT 1 FROM oncue_channel AS c WHERE c.name = m.channel AND c.heard_at > m.settled_at);

-- name: unread_updates
-- Updates that came in by then, and whose statuses were not taken in yet; one that failed is tried again by ``soon``.
SELECT count(*) FROM (
  SELECT 1 FROM oncue_job WHERE state = 'scheduled' AND queue = :queue AND priority = :priority
    AND eligible_at <= :soon AND task = :task AND scheduled_at <= :until
  UNION ALL
  SELECT 1 FROM oncue_job WHERE state = 'running' AND task = :task AND scheduled_at <= :until) AS unread;

-- name: people_reached
-- Others to whom a template went in that time.
SELECT count(DISTINCT person) FROM (
  SELECT person FROM oncue_message
  WHERE channel = :channel AND state = 'accepted' AND settled_at > :since
    AND (as_template = 1 OR content->>'type' = 'template') AND person <> :person
  UNION ALL
  SELECT person FROM oncue_message
  WHERE channel = :channel AND state IN ('sending', 'unknown') AND sending_at > :since
    AND (as_template = 1 OR content->>'type' = 'template') AND person <> :person) AS m;

-- name: was_reached
SELECT count(*) FROM oncue_message
WHERE person = :person AND state = 'accepted' AND settled_at > :since
  AND (as_template = 1 OR content->>'type' = 'template');

-- name: duplicates
-- Messages that went out more than once; what the provider says it did not deliver does not count.
SELECT json_group_array(json_object(
  'message', message, 'ref', ref, 'person', person, 'chat', chat, 'step', step, 'kind', kind, 'copies', copies
)) FROM (
  SELECT m.id AS message, m.ref, m.person, m.chat, m.step, m.kind, count(*) AS copies
  FROM oncue_sent AS s JOIN oncue_message AS m ON m.id = s.message
  WHERE m.channel = :channel AND NOT (
    EXISTS (SELECT 1 FROM oncue_status AS f
            WHERE f.channel = s.channel AND f.external_id = s.external_id AND f.status = 'failed')
    AND NOT EXISTS (SELECT 1 FROM oncue_status AS d
                    WHERE d.channel = s.channel AND d.external_id = s.external_id
                      AND d.status IN ('delivered', 'read')))
  GROUP BY m.id, m.ref, m.person, m.chat, m.step, m.kind HAVING count(*) > 1 ORDER BY m.id) AS twice;

-- name: charge_limit
INSERT INTO oncue_limit (name, tat, backlog) VALUES (:name, :now + :cost, 0)
ON CONFLICT (name) DO UPDATE SET tat = max(tat, :now) + :cost;
