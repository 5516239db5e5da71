-- task_submit: a task with all its items, once per idempotency key; and the first message about it.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.id, r.duplicate
from tidings.task_submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) r
