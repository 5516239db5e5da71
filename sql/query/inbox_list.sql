-- inbox_list: the inbox of a user, the newest first; a page begins before a notice.
select n.id, n.title, n.content, n.data, n.priority, n.confirm,
    (extract(epoch from n.created_at) * 1000)::bigint, (extract(epoch from n.expires_at) * 1000)::bigint,
    i.state, (extract(epoch from i.read_at) * 1000)::bigint, (extract(epoch from i.confirmed_at) * 1000)::bigint
from tidings.inbox i join tidings.notice n on n.number = i.notice
where i.user_id = $1 and tidings.notice_live(n) and (not $2 or i.state < 3)
  and ($3::text is null or i.notice < (select b.number from tidings.notice b where b.id = $3))
order by i.notice desc limit $4
