-- task_get: one task as it stands.
select t.id, t.action, t.owner, t.status, t.total, t.succeeded, t.failed, t.cancelled, t.in_flight, t.message, t.error, t.attempt, t.replica,
    (extract(epoch from t.created_at) * 1000)::bigint, (extract(epoch from t.started_at) * 1000)::bigint,
    (extract(epoch from t.updated_at) * 1000)::bigint, (extract(epoch from t.finished_at) * 1000)::bigint,
    t.meta, t.executor, t.concurrency, t.retries, t.item_timeout_ms, t.at_most_once, t.seq, t.notice
from tidings.task t where t.id = $1
