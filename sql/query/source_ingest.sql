-- source_ingest: takes what was pushed, if the source is one that pushes and its reader keeps up.
select i.pushes, i.enabled, i.kept from tidings.source_ingest($1, $2, $3, $4) i
