-- task_resume: lets a paused task go on.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.outcome
from tidings.task_resume($1) r
