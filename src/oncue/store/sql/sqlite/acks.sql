-- Outcomes of attempts, each fenced by the worker that claimed.

-- name: finish_jobs
INSERT INTO oncue_finished (id, task, args, queue, priority, state, outcome, scheduled_at, attempt, snoozes,
                            max_attempts, worker, started_at, finished_at, key, group_name, max_late, when_late,
                            metadata, origin, origin_ref, folded, progress, created_at, result, error, traceback,
                            reason, expires_at, claimed_at, first_due, first_max)
WITH a (id, attempt, state, outcome, started_at, finished_at, result, error, traceback, reason, expires_at) AS (
  VALUES {rows}
)
SELECT j.id, j.task, j.args, j.queue, j.priority, a.state, a.outcome, j.scheduled_at, j.attempt, j.snoozes,
       j.max_attempts, j.worker, a.started_at, a.finished_at, j.key, j.group_name, j.max_late, j.when_late,
       j.metadata, j.origin, j.origin_ref, j.folded, j.progress, j.created_at, a.result, a.error, a.traceback,
       a.reason, a.expires_at, j.claimed_at, j.first_due, j.first_max
FROM a CROSS JOIN oncue_job AS j ON j.id = a.id
WHERE j.worker IS ? AND j.attempt = a.attempt;

-- name: drop_jobs
DELETE FROM oncue_job WHERE id IN (SELECT value FROM json_each(:ids)) AND worker IS :worker;

-- name: record_attempts
INSERT OR REPLACE INTO oncue_attempt (job, attempt, outcome, scheduled_at, started_at, finished_at, worker, error,
                                      traceback, reason, claimed_at)
SELECT j.id, j.attempt, a.value->>3, j.scheduled_at, a.value->>4, a.value->>5, j.worker, a.value->>7, a.value->>8,
       a.value->>9, j.claimed_at
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
