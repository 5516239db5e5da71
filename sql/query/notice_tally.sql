-- notice_tally: how many recipients are in which state, counted from their rows; 5 is expired. And how many have a session.
select case when i.state < 2 and n.expires_at <= clock_timestamp() then 5 else i.state end::smallint as shown, count(*),
    count(*) filter (where exists (
        select from tidings.presence p join tidings.replica r on r.id = p.replica and r.until > clock_timestamp() where p.user_id = i.user_id))
from tidings.notice n join tidings.inbox i on i.notice = n.number
where n.id = $1 group by shown
