-- Conversations over a channel (a WhatsApp number, a Telegram bot). Times are microseconds since the epoch.
-- What is known of the channel itself. Without a row nothing is.
CREATE TABLE oncue_channel (
  name          TEXT    PRIMARY KEY,
  stopped       TEXT,                  -- why nothing is sent; a person has to put that right
  stopped_at    INTEGER,
  wait_until    INTEGER,               -- sends wait: the provider said that we are too fast
  refusals      INTEGER NOT NULL DEFAULT 0,   -- such answers in a row
  heard_at      INTEGER,               -- when an authentic update came last
  up_since      INTEGER,               -- since when the intake of updates runs without a gap
  seen_at       INTEGER,               -- when it last said so
  disabled      TEXT    NOT NULL DEFAULT '{}'   -- JSON: template and language -> why it can't be used
) STRICT, WITHOUT ROWID;

-- A person on a channel. An address may change or be withheld, so either name finds the person.
CREATE TABLE oncue_person (
  id            INTEGER PRIMARY KEY,
  channel       TEXT    NOT NULL,
  address       TEXT,                  -- where to send: wa_id, chat id
  user_id       TEXT,                  -- the provider's name of the person: a BSUID
  name          TEXT,
  timezone      TEXT,
  heard_at      INTEGER,               -- when the person wrote last, by the provider's clock: opens the window
  opted_out_at  INTEGER,
  no_marketing_at INTEGER,
  stopped       TEXT,                  -- why nothing can be sent to this person
  human_since   INTEGER,               -- a human has taken over
  wait_until    INTEGER,               -- the provider said that we are too fast for this person
  refusals      INTEGER NOT NULL DEFAULT 0,
  created_at    INTEGER NOT NULL,
  CHECK (address IS NOT NULL OR user_id IS NOT NULL)
) STRICT;
CREATE UNIQUE INDEX oncue_person_address ON oncue_person (channel, address) WHERE address IS NOT NULL;
CREATE UNIQUE INDEX oncue_person_user ON oncue_person (channel, user_id) WHERE user_id IS NOT NULL;

-- One run of a conversation with one person, of whom at most one is live.
CREATE TABLE oncue_chat (
  id            INTEGER PRIMARY KEY,
  conversation  TEXT    NOT NULL,
  channel       TEXT    NOT NULL,
  person        INTEGER NOT NULL,
  state         TEXT    NOT NULL CHECK (state IN ('active', 'paused', 'parked', 'done', 'stopped')),
  version       INTEGER NOT NULL DEFAULT 0,   -- moves with every advance, so that what is stale shows
  step          TEXT,                  -- what it waits at
  tries         INTEGER NOT NULL DEFAULT 0,   -- answers to this step that did not fit
  reason        TEXT,                  -- why it is parked, paused or stopped
  error         TEXT,                  -- the traceback
  started_at    INTEGER NOT NULL,
  changed_at    INTEGER NOT NULL,
  ended_at      INTEGER,
  expires_at    INTEGER
) STRICT;
CREATE UNIQUE INDEX oncue_chat_live ON oncue_chat (person) WHERE state IN ('active', 'paused', 'parked');
CREATE INDEX oncue_chat_person ON oncue_chat (person, id);
CREATE INDEX oncue_chat_state ON oncue_chat (state, changed_at);
CREATE INDEX oncue_chat_expires ON oncue_chat (expires_at) WHERE expires_at IS NOT NULL;

-- The record that a conversation is resumed from.
CREATE TABLE oncue_chat_step (
  chat          INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  nth           INTEGER NOT NULL,      -- in the order in which they were reached
  kind          TEXT    NOT NULL CHECK (kind IN ('ask', 'say', 'sleep', 'do')),
  shape         TEXT    NOT NULL DEFAULT '',   -- what must still be so for the record to count
  state         TEXT    NOT NULL CHECK (state IN ('open', 'done')),
  value         TEXT,                  -- JSON
  message       INTEGER,               -- its question or message
  opened_at     INTEGER NOT NULL,
  done_at       INTEGER,
  PRIMARY KEY (chat, name)
) STRICT, WITHOUT ROWID;

-- The outbox: one row for each message that a person is to receive.
CREATE TABLE oncue_message (
  id            INTEGER PRIMARY KEY,
  ref           TEXT    NOT NULL UNIQUE,       -- what the echo names it by
  channel       TEXT    NOT NULL,
  person        INTEGER NOT NULL,
  chat          INTEGER,
  step          TEXT,
  kind          TEXT    NOT NULL CHECK (kind IN ('question', 'say', 'reminder', 'hint', 'note')),
  nth           INTEGER NOT NULL DEFAULT 0,    -- which reminder, or which hint, of its step
  content       TEXT    NOT NULL,              -- JSON
  fallback      TEXT,                          -- JSON: the template for when the window is shut
  options       TEXT    NOT NULL DEFAULT '{}', -- JSON: what the sender needs besides
  state         TEXT    NOT NULL DEFAULT 'queued'
                CHECK (state IN ('queued', 'sending', 'accepted', 'rejected', 'unknown', 'skipped')),
  attempt       INTEGER NOT NULL DEFAULT 0,
  due           INTEGER NOT NULL,
  sending_at    INTEGER,
  unknown_at    INTEGER,
  settled_at    INTEGER,
  external_id   TEXT,                          -- the provider's name of it, the last one: a wamid
  as_template   INTEGER NOT NULL DEFAULT 0,    -- 1: the fallback is what went out
  status        TEXT,                          -- what the provider says of it: sent, delivered, read, failed
  status_at     INTEGER,
  code          INTEGER,                       -- the provider's error
  reason        TEXT,
  resolution    TEXT,                          -- how an unknown outcome was settled
  resent        INTEGER NOT NULL DEFAULT 0,
  created_at    INTEGER NOT NULL,
  expires_at    INTEGER
) STRICT;
CREATE INDEX oncue_message_open ON oncue_message (person, id) WHERE state IN ('queued', 'sending', 'unknown');
CREATE INDEX oncue_message_person ON oncue_message (person, id);
CREATE INDEX oncue_message_chat ON oncue_message (chat, step) WHERE chat IS NOT NULL;
CREATE INDEX oncue_message_sent ON oncue_message (channel, settled_at) WHERE state = 'accepted';
CREATE INDEX oncue_message_expires ON oncue_message (expires_at) WHERE expires_at IS NOT NULL;

-- Every name that the provider gave a message. A second one for the same message is a duplicate that a person saw.
CREATE TABLE oncue_sent (
  channel       TEXT    NOT NULL,
  external_id   TEXT    NOT NULL,
  message       INTEGER NOT NULL,
  attempt       INTEGER NOT NULL,
  at            INTEGER NOT NULL,
  PRIMARY KEY (channel, external_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX oncue_sent_message ON oncue_sent (message);

-- Every status that the provider told, also of messages that we don't know (yet).
CREATE TABLE oncue_status (
  channel       TEXT    NOT NULL,
  external_id   TEXT    NOT NULL,
  status        TEXT    NOT NULL,
  at            INTEGER NOT NULL,      -- by the provider's clock, in whole seconds
  echo          TEXT,
  message       INTEGER,
  code          INTEGER,
  reason        TEXT,
  verdict       TEXT,                  -- for failed: what the error means
  heard_at      INTEGER NOT NULL,
  PRIMARY KEY (channel, external_id, status, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX oncue_status_message ON oncue_status (message) WHERE message IS NOT NULL;
CREATE INDEX oncue_status_heard ON oncue_status (heard_at);
CREATE INDEX oncue_status_unmatched ON oncue_status (channel, heard_at) WHERE message IS NULL;

-- Every message of a person, once.
CREATE TABLE oncue_inbound (
  channel       TEXT    NOT NULL,
  external_id   TEXT    NOT NULL,
  person        INTEGER NOT NULL,
  chat          INTEGER,
  step          TEXT,                  -- the step that it answers, or is a part of the answer to
  kind          TEXT    NOT NULL,
  content       TEXT    NOT NULL,      -- JSON
  sent_at       INTEGER NOT NULL,      -- by the provider's clock
  heard_at      INTEGER NOT NULL,
  handled_at    INTEGER,               -- when what follows from it was stored, with it
  note          TEXT,                  -- why nothing followed from it
  PRIMARY KEY (channel, external_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX oncue_inbound_person ON oncue_inbound (person, heard_at);
CREATE INDEX oncue_inbound_heard ON oncue_inbound (heard_at);
CREATE INDEX oncue_inbound_step ON oncue_inbound (chat, step, heard_at) WHERE chat IS NOT NULL;

-- The raw updates, stored before they are answered.
CREATE TABLE oncue_update (
  id            INTEGER PRIMARY KEY,
  channel       TEXT    NOT NULL,
  raw           TEXT    NOT NULL,      -- as received; base64 with 'base64:' in front where it is no UTF-8
  heard_at      INTEGER NOT NULL,
  note          TEXT,                  -- what could not be read in it
  expires_at    INTEGER
) STRICT;
CREATE INDEX oncue_update_expires ON oncue_update (expires_at) WHERE expires_at IS NOT NULL;

-- What else belongs into a person's timeline: skips, parks, opt-outs, a human taking over, and why.
CREATE TABLE oncue_event (
  id            INTEGER PRIMARY KEY,
  person        INTEGER NOT NULL,
  chat          INTEGER,
  message       INTEGER,
  at            INTEGER NOT NULL,
  kind          TEXT    NOT NULL,
  text          TEXT    NOT NULL
) STRICT;
CREATE INDEX oncue_event_person ON oncue_event (person, at);
