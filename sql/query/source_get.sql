-- source_get: sources by name, or all of them after a name, in their order.
select s.id, s.format, s.url, s.sealed, s.headers, s.enabled, s.revision, s.status, s.detail,
    case when r.due_at > clock_timestamp() then split_part(s.holder, ' ', 1) end,
    (extract(epoch from s.created_at) * 1000)::bigint, (extract(epoch from s.updated_at) * 1000)::bigint,
    (extract(epoch from s.seen_at) * 1000)::bigint
from tidings.source s left join tidings.source_reader r on r.holder = s.holder
where ($1::text is null or s.id = $1) and ($2::text is null or s.id > $2)
order by s.id limit $3
