DROP TABLE oncue_channel, oncue_person, oncue_chat, oncue_chat_step, oncue_message, oncue_sent, oncue_status,
  oncue_inbound, oncue_update, oncue_event;
