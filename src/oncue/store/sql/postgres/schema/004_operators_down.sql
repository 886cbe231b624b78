DROP TABLE oncue_audit, oncue_token, oncue_task_pause, oncue_minute, oncue_alert;
