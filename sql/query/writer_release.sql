-- writer_release: hands the slot back when the replica leaves.
update tidings.writer set used_at = '-infinity' where slot = $1 and fence = $2
