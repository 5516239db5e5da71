-- notice_list: the newest notices first; a page begins before a notice.
select n.id, n.target, n.roles, n.except_users, n.title, n.content, n.data, n.priority, n.confirm, n.sender, n.recipients,
    (extract(epoch from n.created_at) * 1000)::bigint, (extract(epoch from n.expires_at) * 1000)::bigint,
    (extract(epoch from n.recalled_at) * 1000)::bigint, n.sending
from tidings.notice n
where $1::text is null or n.number < (select b.number from tidings.notice b where b.id = $1)
order by n.number desc limit $2
