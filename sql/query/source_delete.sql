-- source_delete: the source goes at once, what it left behind is swept up later.
delete from tidings.source s where s.id = $1 returning s.number
