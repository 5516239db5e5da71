-- source_logs: the newest lines first; a page begins before a line.
select g.number, s.id, g.instance, (extract(epoch from g.at) * 1000)::bigint, g.text
from tidings.source_log g join tidings.source s on s.number = g.source
where s.id = $1 and ($2::text is null or g.instance = $2) and ($3::bigint is null or g.number < $3)
order by g.number desc limit $4
