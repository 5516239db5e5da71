-- source_inbox: what was pushed to these sources after what their reader knows.
select s.id, b.number, b.events, (extract(epoch from b.at) * 1000)::bigint
from unnest($1::text[], $2::bigint[]) w(id, after)
join tidings.source s on s.id = w.id
join tidings.source_inbox b on b.source = s.number and b.number > w.after
order by b.number limit $3
