-- All that is kept of one person: to show it, to hand it over, to erase it. In the same order in every dialect.

-- name: people_named
-- Of all channels where none is given. Names of people are no names for a person: two may have the same.
SELECT json_group_array(json_object(
  'id', id, 'channel', channel, 'created_at', created_at, 'address', address, 'user_id', user_id, 'name', name,
  'timezone', timezone, 'heard_at', heard_at, 'opted_out_at', opted_out_at, 'no_marketing_at', no_marketing_at,
  'stopped', stopped, 'human_since', human_since, 'wait_until', wait_until, 'refusals', refusals))
FROM (SELECT * FROM oncue_person WHERE (:channel IS NULL OR channel = :channel)
  AND (address = :name OR user_id = :name OR 'p' || id = :name)
      ORDER BY id);

-- name: file_person
SELECT json_group_array(json_object(
  'id', id, 'channel', channel, 'created_at', created_at, 'address', address, 'user_id', user_id, 'name', name,
  'timezone', timezone, 'heard_at', heard_at, 'opted_out_at', opted_out_at, 'no_marketing_at', no_marketing_at,
  'stopped', stopped, 'human_since', human_since, 'wait_until', wait_until, 'refusals', refusals))
FROM (SELECT * FROM oncue_person WHERE id = :person
      ORDER BY id);

-- name: file_chats
SELECT json_group_array(json_object(
  'id', id, 'conversation', conversation, 'channel', channel, 'person', person, 'state', state, 'version', version,
  'started_at', started_at, 'changed_at', changed_at, 'step', step, 'tries', tries, 'reason', reason, 'error', error,
  'ended_at', ended_at))
FROM (SELECT * FROM oncue_chat WHERE person = :person
      ORDER BY id);

-- name: file_steps
SELECT json_group_array(json_object(
  'chat', chat, 'name', name, 'nth', nth, 'kind', kind, 'state', state, 'opened_at', opened_at, 'shape', shape,
  'value', value, 'message', message, 'done_at', done_at))
FROM (SELECT * FROM oncue_chat_step WHERE chat IN (SELECT id FROM oncue_chat WHERE person = :person)
      ORDER BY chat, nth);

-- name: file_messages
SELECT json_group_array(json_object(
  'id', id, 'ref', ref, 'channel', channel, 'person', person, 'kind', kind, 'content', content, 'state', state,
  'due', due, 'created_at', created_at, 'chat', chat, 'step', step, 'nth', nth, 'fallback', fallback,
  'options', options, 'attempt', attempt, 'sending_at', sending_at, 'unknown_at', unknown_at,
  'settled_at', settled_at, 'external_id', external_id, 'as_template', as_template, 'status', status,
  'status_at', status_at, 'code', code, 'reason', reason, 'resolution', resolution, 'resent', resent))
FROM (SELECT * FROM oncue_message WHERE person = :person
      ORDER BY id);

-- name: file_sent
SELECT json_group_array(json_object(
  'channel', channel, 'external_id', external_id, 'message', message, 'attempt', attempt, 'at', at))
FROM (SELECT * FROM oncue_sent WHERE message IN (SELECT id FROM oncue_message WHERE person = :person)
      ORDER BY at, external_id);

-- name: file_statuses
SELECT json_group_array(json_object(
  'channel', channel, 'external_id', external_id, 'status', status, 'at', at, 'echo', echo, 'message', message,
  'code', code, 'reason', reason, 'heard_at', heard_at))
FROM (SELECT * FROM oncue_status WHERE message IN (SELECT id FROM oncue_message WHERE person = :person)
      ORDER BY heard_at, at, external_id);

-- name: file_inbound
SELECT json_group_array(json_object(
  'channel', channel, 'external_id', external_id, 'person', person, 'kind', kind, 'content', content,
  'sent_at', sent_at, 'heard_at', heard_at, 'chat', chat, 'step', step, 'handled_at', handled_at, 'note', note))
FROM (SELECT * FROM oncue_inbound WHERE person = :person
      ORDER BY heard_at, external_id);

-- name: file_events
SELECT json_group_array(json_object(
  'id', id, 'person', person, 'chat', chat, 'message', message, 'at', at, 'kind', kind, 'text', text))
FROM (SELECT * FROM oncue_event WHERE person = :person
      ORDER BY at, id);

-- name: erase_statuses
DELETE FROM oncue_status WHERE message IN (SELECT id FROM oncue_message WHERE person = :person);

-- name: erase_sent
DELETE FROM oncue_sent WHERE message IN (SELECT id FROM oncue_message WHERE person = :person);

-- name: erase_messages
DELETE FROM oncue_message WHERE person = :person;

-- name: erase_inbound
DELETE FROM oncue_inbound WHERE person = :person;

-- name: erase_steps
DELETE FROM oncue_chat_step WHERE chat IN (SELECT id FROM oncue_chat WHERE person = :person);

-- name: erase_chats
DELETE FROM oncue_chat WHERE person = :person;

-- name: erase_events
DELETE FROM oncue_event WHERE person = :person;

-- name: erase_person
DELETE FROM oncue_person WHERE id = :person;

-- name: erase_updates
DELETE FROM oncue_update WHERE channel = :channel AND heard_at < :before
  AND EXISTS (SELECT 1 FROM json_each(:names) AS n WHERE instr(raw, n.value) > 0);

-- name: expire_updates
UPDATE oncue_update SET expires_at = :at WHERE channel = :channel AND heard_at >= :before
  AND coalesce(expires_at > :at, true)
  AND EXISTS (SELECT 1 FROM json_each(:names) AS n WHERE instr(raw, n.value) > 0);
