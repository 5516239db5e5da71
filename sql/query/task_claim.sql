-- task_claim: leases on tasks that are due, new ones and those whose lease ran out; and when the next one is due.
select (r.told).epoch, (r.told).at_ms, (r.told).first_seq, (r.told).topics, (r.told).datas, (r.told).finals, (r.told).ids, r.ids, r.terms, r.next_due_ms
from tidings.task_claim($1, $2, $3, $4, $5, $6) r
