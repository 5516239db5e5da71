-- partition_expire: the partitions that are no longer kept, oldest first. Time never goes back along the log, so all before one that is too old are too old as well.
with due as materialized (
    select p.first_seq, p.last_seq from tidings.partition p, tidings.log l
    where p.last_seq < l.head and exists (
        select from tidings.message m where m.seq = p.last_seq and m.at < clock_timestamp() - make_interval(secs => $1))
), marked as (
    update tidings.log l set kept_from = d.last_seq + 1
    from (select max(due.last_seq) as last_seq from due) d where l.kept_from <= d.last_seq
)
select first_seq from due order by first_seq
