-- source_inbox: what was pushed to these sources after what their reader knows, as many batches and bytes as it takes at a time.
select n.id, n.number, n.events, n.at_ms
from (
    select f.*, sum(octet_length(f.events)) over (order by f.number) - octet_length(f.events) as bytes_before
    from (
        select s.id, b.number, b.events, (extract(epoch from b.at) * 1000)::bigint as at_ms
        from unnest($1::text[], $2::bigint[]) w(id, after)
        join tidings.source s on s.id = w.id
        join tidings.source_inbox b on b.source = s.number and b.number > w.after
        order by b.number limit $3) f) n
where n.bytes_before < $4
order by n.number
