-- outbox_oldest: how much waits in the outbox and for how long, to see a relay that does not keep up.
select count(*), coalesce(extract(epoch from clock_timestamp() - min(at)), 0)::float8
from (select at from tidings.outbox order by id limit 1000) waiting
