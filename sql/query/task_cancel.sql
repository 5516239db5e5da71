-- task_cancel: ends a task, or asks its holder to.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.outcome
from tidings.task_cancel($1) r
