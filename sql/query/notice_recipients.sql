-- notice_recipients: what recipients have done, by their names; a page begins after a user.
select s.user_id, s.shown, s.sent_ms, s.received_ms, s.read_ms, s.confirmed_ms from (
    select i.user_id,
        (array['pending', 'sent', 'received', 'read', 'confirmed', 'expired'])[
            1 + case when i.state < 2 and n.expires_at <= clock_timestamp() then 5 else i.state end] as shown,
        (extract(epoch from i.sent_at) * 1000)::bigint as sent_ms, (extract(epoch from i.received_at) * 1000)::bigint as received_ms,
        (extract(epoch from i.read_at) * 1000)::bigint as read_ms, (extract(epoch from i.confirmed_at) * 1000)::bigint as confirmed_ms
    from tidings.notice n join tidings.inbox i on i.notice = n.number
    where n.id = $1 and ($3::text is null or i.user_id > $3)
) s
where $2::text is null or s.shown = $2
order by s.user_id limit $4
