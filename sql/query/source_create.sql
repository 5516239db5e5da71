-- source_create: a new source, if the name is free and there is room; says whether the name was taken.
with known as (select 1 from tidings.source s where s.id = $1),
made as (
    insert into tidings.source (id, format, url, sealed, headers, enabled, status)
    select $1, $2, $3, $4, $5, $6, case when $6 then 'idle' else 'disabled' end
    where not exists (select from known) and (select count(*) from tidings.source) < $7
    on conflict (id) do nothing returning 1)
select exists (select from made), exists (select from known)
