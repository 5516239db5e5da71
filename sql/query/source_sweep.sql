-- source_sweep: removes what is too old, and what deleted sources left behind.
select w.events, w.minutes, w.hours, w.days, w.logs, w.instances, w.orphans from tidings.source_sweep($1) w
