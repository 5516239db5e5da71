-- notice_expire: removes notices that are too old, with their receipts, a few at a time.
with gone as (
    select n.number from tidings.notice n
    where n.created_at < clock_timestamp() - make_interval(secs => $1) and (n.expires_at is null or n.expires_at < clock_timestamp())
    order by n.created_at limit $2 for update skip locked
), rows as (
    delete from tidings.inbox i using gone where i.notice = gone.number
)
delete from tidings.notice n using gone where n.number = gone.number
returning 1
