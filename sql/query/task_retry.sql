-- task_retry: runs what failed or was cancelled again, as another attempt.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.outcome
from tidings.task_retry($1) r
