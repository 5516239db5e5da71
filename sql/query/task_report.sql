-- task_report: finished items, counters, the lease and the message about them, in one transaction; a stale term changes nothing.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.outcome, r.status, r.stop, r.unknown
from tidings.task_report($1, $2, $3, $4, $5, $6, $7, $8) r
