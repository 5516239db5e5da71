-- notice_get: one notice as it was sent; of those who were named only how many they are.
select n.id, n.target, n.roles, n.except_users, n.title, n.content, n.data, n.priority, n.confirm, n.sender, n.recipients,
    (extract(epoch from n.created_at) * 1000)::bigint, (extract(epoch from n.expires_at) * 1000)::bigint,
    (extract(epoch from n.recalled_at) * 1000)::bigint, n.sending
from tidings.notice n where n.id = $1
