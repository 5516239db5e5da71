-- source_flush: what a reader has gathered of its sources, each part whole or not at all.
select f.id, f.outcome from tidings.source_flush($1::text::jsonb) f
