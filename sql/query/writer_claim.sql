-- writer_claim: a slot for a lane; its fence shuts out whoever held it before.
select slot, fence from tidings.writer_claim($1, $2)
