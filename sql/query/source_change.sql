-- source_change: what a user changed, unless somebody else did meanwhile; its reader begins anew.
update tidings.source s set format = $3, url = $4, sealed = $5, headers = $6, enabled = $7, revision = s.revision + 1,
    status = case when $7 then 'idle' else 'disabled' end, detail = null, updated_at = clock_timestamp(),
    last_event_id = case when s.url is not distinct from $4 then s.last_event_id end
where s.id = $1 and s.revision = $2
returning s.revision
