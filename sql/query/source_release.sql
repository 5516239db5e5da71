-- source_release: a reader that leaves has no lease any more.
delete from tidings.source_reader r where r.holder = $1
