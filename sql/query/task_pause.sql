-- task_pause: lets its holder finish what it has in hand, and no more.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.outcome
from tidings.task_pause($1) r
