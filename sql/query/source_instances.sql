-- source_instances: the instances of a source as they were when it was last flushed.
select i.name, i.status, i.state::text, i.pending::text,
    (extract(epoch from i.at) * 1000)::bigint, (extract(epoch from i.created_at) * 1000)::bigint
from tidings.instance i join tidings.source s on s.number = i.source
where s.id = $1
