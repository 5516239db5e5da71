-- task_list: the newest tasks first; a page begins after a task.
select t.id, t.action, t.owner, t.status, t.total, t.succeeded, t.failed, t.cancelled, t.in_flight, t.message, t.error, t.attempt, t.replica,
    (extract(epoch from t.created_at) * 1000)::bigint, (extract(epoch from t.started_at) * 1000)::bigint,
    (extract(epoch from t.updated_at) * 1000)::bigint, (extract(epoch from t.finished_at) * 1000)::bigint,
    t.meta, t.executor, t.concurrency, t.retries, t.item_timeout_ms, t.at_most_once, t.seq, t.notice
from tidings.task t
where ($1::text is null or t.owner = $1) and ($2::text is null or t.status = $2) and ($3::text is null or t.action = $3)
  and ($4::text is null or t.number < (select a.number from tidings.task a where a.id = $4))
order by t.number desc limit $5
