-- presence_replicas: the replicas that run, and how many sessions of users each holds.
select r.name, r.version, (extract(epoch from r.started_at) * 1000)::bigint,
    (select count(*) from tidings.presence p where p.replica = r.id)
from tidings.replica r where r.until > clock_timestamp() order by r.name, r.id
