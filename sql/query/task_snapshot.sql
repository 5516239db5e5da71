-- task_snapshot: what the last message about a task said, for a session that begins to follow it.
select l.epoch, t.seq, (extract(epoch from t.updated_at) * 1000)::bigint, t.finished_at is not null,
    tidings.task_data(t, null, f.items, t.finished_at is not null and t.failed > f.listed),
    l.head
from tidings.log l, tidings.task t
left join lateral tidings.task_failed_items(case when t.finished_at is not null and t.failed > 0 then t.number end) f on true
where t.id = $1
