-- source_ingest: takes what was pushed, if the source is one that pushes and its reader keeps up.
-- One after the other, so that numbers are committed in their order and the reader passes none over.
with own as materialized (
    select s.number, s.url is null as pushes, s.enabled from tidings.source s where s.id = $1 for no key update),
waiting as (select count(*) as count from own join tidings.source_inbox b on b.source = own.number),
kept as (
    insert into tidings.source_inbox (source, events)
    select own.number, $2 from own, waiting where own.pushes and own.enabled and waiting.count < $3 returning 1)
select own.pushes, own.enabled, exists (select from kept) from own
