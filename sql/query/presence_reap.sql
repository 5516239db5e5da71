-- presence_reap: removes replicas whose lease ran out, or one that leaves, with their sessions.
select user_id, topics from tidings.presence_reap($1)
