-- Telemetry: sources, what their instances last showed, and what they did over time.
-- One replica at a time reads a source. It holds the source under a term, and its lease is one row for all its sources.
-- A flush carries its term and a number: a repeated one, and one of an older term, writes nothing.

create table tidings.source (
    number bigint generated always as identity primary key,
    id text collate "C" not null unique,
    format text not null check (format in ('generic', 'nodepass')),
    url text,
    sealed text,
    headers text[] not null default '{}',
    enabled boolean not null default true,
    revision bigint not null default 1,
    status text not null default 'idle' check (status in ('idle', 'connected', 'failing', 'stopped', 'disabled')),
    detail text,
    holder text collate "C",
    term bigint not null default 0,
    flushed bigint not null default 0,
    last_event_id text,
    log_day date,
    log_count integer not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz
) with (fillfactor = 70);
create index source_holder on tidings.source (holder);
comment on table tidings.source is 'Event sources.';
comment on column tidings.source.number is 'What its rows elsewhere are kept under: a source that comes again under the same name begins anew.';
comment on column tidings.source.id is 'Its name.';
comment on column tidings.source.format is 'How its events are written.';
comment on column tidings.source.url is 'Where it is read, without what may be secret; null for one that pushes.';
comment on column tidings.source.sealed is 'The rest of its URL and its headers, encrypted.';
comment on column tidings.source.headers is 'The names of its headers.';
comment on column tidings.source.enabled is 'Whether it is to be read.';
comment on column tidings.source.revision is 'Counts changes by users.';
comment on column tidings.source.status is 'How it stands.';
comment on column tidings.source.detail is 'Why it stands so.';
comment on column tidings.source.holder is 'Which reader has it.';
comment on column tidings.source.term is 'Which of all readers there were has it; one with another term writes nothing.';
comment on column tidings.source.flushed is 'The number of the last flush of this term.';
comment on column tidings.source.last_event_id is 'From where its stream goes on.';
comment on column tidings.source.log_day is 'The day, in universal time, that log_count is about.';
comment on column tidings.source.log_count is 'How many lines of its logs are kept of that day.';
comment on column tidings.source.created_at is 'When it was made.';
comment on column tidings.source.updated_at is 'When a user changed it.';
comment on column tidings.source.seen_at is 'When something it told was last written.';

create table tidings.source_gone (
    number bigint primary key
);
comment on table tidings.source_gone is 'Sources that were deleted, until nothing of them is left.';
comment on column tidings.source_gone.number is 'What their rows are kept under.';

create table tidings.source_reader (
    holder text collate "C" primary key,
    due_at timestamptz not null
) with (fillfactor = 50);
comment on table tidings.source_reader is 'The lease of each replica on all the sources that it reads.';
comment on column tidings.source_reader.holder is 'The replica, and which life of it.';
comment on column tidings.source_reader.due_at is 'When its sources may be taken over.';

create table tidings.source_inbox (
    number bigint generated always as identity primary key,
    source bigint not null references tidings.source (number) on delete cascade,
    events text not null,
    at timestamptz not null default clock_timestamp()
);
create index source_inbox_source on tidings.source_inbox (source, number);
comment on table tidings.source_inbox is 'What was pushed, until its reader has written what became of it.';
comment on column tidings.source_inbox.number is 'The order in which it is read.';
comment on column tidings.source_inbox.source is 'Whose it is.';
comment on column tidings.source_inbox.events is 'Events in the generic form, a JSON array.';
comment on column tidings.source_inbox.at is 'When it came.';

create table tidings.instance (
    source bigint not null,
    name text collate "C" not null,
    status text not null check (status in ('up', 'down', 'deleted')),
    state jsonb not null,
    pending jsonb not null,
    at timestamptz not null,
    created_at timestamptz not null,
    primary key (source, name)
) with (fillfactor = 60);
create index instance_gone on tidings.instance (at) where status = 'deleted';
comment on table tidings.instance is 'Instances as they were when their source was last flushed.';
comment on column tidings.instance.source is 'Whose it is.';
comment on column tidings.instance.name is 'What its source calls it.';
comment on column tidings.instance.status is 'How it stands; one that is deleted stays for a while, so that what was late does not bring it back.';
comment on column tidings.instance.state is 'Facts, gauges, and counters as [value, at in ms, all growth].';
comment on column tidings.instance.pending is 'What is not in the roll-ups yet: a bucket for each minute, by its beginning in ms.';
comment on column tidings.instance.at is 'The moment of its last event.';
comment on column tidings.instance.created_at is 'When it came, or came again.';

create table tidings.rollup (
    level smallint not null,
    source bigint not null,
    at timestamptz not null,
    instance text collate "C" not null,
    counters jsonb not null,
    gauges jsonb not null,
    primary key (source, level, at, instance)
);
create index rollup_old on tidings.rollup (level, at);
comment on table tidings.rollup is 'What an instance did in a minute, an hour or a day.';
comment on column tidings.rollup.level is '0 minutes, 1 hours, 2 days, in universal time.';
comment on column tidings.rollup.source is 'Whose instance it is.';
comment on column tidings.rollup.at is 'When the bucket begins.';
comment on column tidings.rollup.instance is 'What its source calls it.';
comment on column tidings.rollup.counters is 'For each counter [growth, least, greatest, samples].';
comment on column tidings.rollup.gauges is 'For each gauge [sum, least, greatest, samples].';

create table tidings.source_events (
    number bigint generated always as identity primary key,
    source bigint not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    count integer not null,
    events text not null
);
create index source_events_source on tidings.source_events (source, last_at);
create index source_events_old on tidings.source_events (last_at);
comment on table tidings.source_events is 'Raw events, many in a row.';
comment on column tidings.source_events.number is 'The order in which they were written.';
comment on column tidings.source_events.source is 'Whose they are.';
comment on column tidings.source_events.first_at is 'The moment of the oldest.';
comment on column tidings.source_events.last_at is 'The moment of the newest.';
comment on column tidings.source_events.count is 'How many.';
comment on column tidings.source_events.events is 'A JSON array of events in the generic form.';

create table tidings.source_log (
    number bigint generated always as identity primary key,
    source bigint not null,
    instance text collate "C",
    at timestamptz not null,
    text text not null
);
create index source_log_source on tidings.source_log (source, number);
create index source_log_old on tidings.source_log (at);
comment on table tidings.source_log is 'Lines of logs.';
comment on column tidings.source_log.number is 'The order in which they were written.';
comment on column tidings.source_log.source is 'Whose they are.';
comment on column tidings.source_log.instance is 'Of which instance, if of one.';
comment on column tidings.source_log.at is 'When.';
comment on column tidings.source_log.text is 'The line.';

-- Adds the increments of two buckets up: by metric [sum, least, greatest, samples].
create function tidings.rollup_merge(a jsonb, b jsonb) returns jsonb
language sql immutable parallel safe as $$
    select case when a = '{}' then b when b = '{}' then a else (
        select jsonb_object_agg(key, case
            when x.value is null then y.value when y.value is null then x.value
            else jsonb_build_array(
                (x.value ->> 0)::numeric + (y.value ->> 0)::numeric,
                least((x.value ->> 1)::numeric, (y.value ->> 1)::numeric),
                greatest((x.value ->> 2)::numeric, (y.value ->> 2)::numeric),
                (x.value ->> 3)::numeric + (y.value ->> 3)::numeric) end)
        from jsonb_each(a) x full join jsonb_each(b) y using (key)) end
$$;
create aggregate tidings.rollup_sum(jsonb) (
    sfunc = tidings.rollup_merge, stype = jsonb, initcond = '{}', combinefunc = tidings.rollup_merge, parallel = safe);

-- A new source, if the name is free and there is room. One after the other, so that what is counted is what there is.
create function tidings.source_create(
    id text, format text, url text, sealed text, headers text[], enabled boolean, most bigint)
returns table (made boolean, known boolean)
language plpgsql as $$
#variable_conflict use_variable
begin
    perform pg_advisory_xact_lock(hashtextextended('tidings.source_create', 0));
    known := exists (select from tidings.source s where s.id = id);
    made := not known and (select count(*) from tidings.source) < most;
    if made then
        insert into tidings.source (id, format, url, sealed, headers, enabled, status)
        values (id, format, url, sealed, headers, enabled, case when enabled then 'idle' else 'disabled' end);
    end if;
    return next;
end
$$;
comment on function tidings.source_create(text, text, text, text, text[], boolean, bigint) is 'A new source, if the name is free and there is room.';

-- Takes what was pushed, if the source is one that pushes and its reader keeps up.
-- One after the other, so that numbers are committed in their order and the reader passes none over; what waits
-- is counted when the lock is held, by a statement of its own, which sees what others pushed meanwhile.
create function tidings.source_ingest(id text, events text, most bigint, most_bytes bigint)
returns table (pushes boolean, enabled boolean, kept boolean)
language plpgsql as $$
#variable_conflict use_variable
declare
    own bigint;
begin
    select s.number, s.url is null, s.enabled into own, pushes, enabled
        from tidings.source s where s.id = id for no key update;
    if not found then
        return;
    end if;
    kept := pushes and enabled and (
        select count(*) < most and coalesce(sum(octet_length(b.events)), 0) < most_bytes
        from tidings.source_inbox b where b.source = own);
    if kept then
        insert into tidings.source_inbox (source, events) values (own, events);
    end if;
    return next;
end
$$;
comment on function tidings.source_ingest(text, text, bigint, bigint) is 'Takes what was pushed, if the source is one that pushes and its reader keeps up.';

-- Terms are never given twice, not even to a source that was deleted and made again under its name: what the
-- reader of the old one still has in hand is not the new one's.
create sequence tidings.source_term owned by tidings.source.term;

-- Renews the lease of a reader, and gives it its share of the sources. One reader after the other: of two at once the
-- second could see a source without its new holder's lease, and take it over.
create function tidings.source_claim(
    holder text, lease_ms bigint, room integer, takes boolean, holds boolean)
returns table (total integer, share integer, sources text)
language plpgsql as $$
#variable_conflict use_variable
declare
    now timestamptz;
    readers integer;
    held integer;
begin
    select count(*) into total from tidings.source s where s.enabled and s.status <> 'stopped';
    share := 0;
    sources := '[]';
    if total = 0 and not holds then
        return next;
        return;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('tidings.source_claim', 0));
    now := clock_timestamp();
    insert into tidings.source_reader as r (holder, due_at) values (holder, now + lease_ms * interval '1 millisecond')
        on conflict on constraint source_reader_pkey do update set due_at = excluded.due_at;
    select count(*) into readers from tidings.source_reader r where r.due_at > now;
    share := least(room, ceil(total::numeric / greatest(readers, 1)));
    select count(*) into held from tidings.source s where s.holder = holder and s.enabled and s.status <> 'stopped';
    if takes and held < share then
        with free as (
            select s.number from tidings.source s
            where s.enabled and s.status <> 'stopped'
              and (s.holder is null
                   or not exists (select from tidings.source_reader r where r.holder = s.holder and r.due_at > now))
            order by s.number limit share - held for update skip locked)
        update tidings.source s set holder = holder, term = nextval('tidings.source_term'), flushed = 0
        from free where s.number = free.number;
        delete from tidings.source_reader r where r.due_at < now - interval '10 minutes';
    end if;
    select coalesce(json_agg(json_build_object(
            'id', s.id, 'term', s.term, 'revision', s.revision, 'format', s.format, 'url', s.url,
            'sealed', s.sealed, 'flushed', s.flushed, 'last_event_id', s.last_event_id,
            'log_day', s.log_day - date '1970-01-01', 'log_count', s.log_count) order by s.number), '[]')::text
        into sources
        from tidings.source s where s.holder = holder and s.enabled and s.status <> 'stopped';
    return next;
end
$$;
comment on function tidings.source_claim(text, bigint, integer, boolean, boolean) is 'Renews the lease of a reader, and gives it its share of the sources.';

-- Writes what a reader has gathered of its sources, each part whole or not at all.
create function tidings.source_flush(batch jsonb) returns table (id text, outcome text)
language plpgsql as $$
#variable_conflict use_variable
declare
    part jsonb;
    own tidings.source;
    told jsonb;
    data_bytes_max integer := (select l.data_bytes_max from tidings.log l);
begin
    for part in select p.value from jsonb_array_elements(batch) p order by p.value ->> 'id' loop
        id := part ->> 'id';
        select * into own from tidings.source s where s.id = id for update;
        if not found or own.term <> (part ->> 'term')::bigint then
            outcome := 'lost';
            return next;
            continue;
        end if;
        outcome := 'done';
        return next;
        if own.flushed >= (part ->> 'number')::bigint then
            continue;
        end if;
        update tidings.source s set
            flushed = (part ->> 'number')::bigint,
            status = case when s.enabled then coalesce(part ->> 'status', s.status) else 'disabled' end,
            detail = case when part ? 'status' then part ->> 'detail' else s.detail end,
            last_event_id = coalesce(part ->> 'last_event_id', s.last_event_id),
            log_day = coalesce(date '1970-01-01' + (part ->> 'log_day')::integer, s.log_day),
            log_count = coalesce((part ->> 'log_count')::integer, s.log_count),
            holder = case when (part ->> 'release')::boolean then null else s.holder end,
            seen_at = case when part ? 'instances' or part ? 'events' then clock_timestamp() else s.seen_at end
        where s.number = own.number;
        if part ? 'instances' then
            insert into tidings.instance as i (source, name, status, state, pending, at, created_at)
            select own.number, n.name, n.status, n.state, n.pending,
                to_timestamp(n.at / 1000.0), to_timestamp(n.created_at / 1000.0)
            from jsonb_to_recordset(part -> 'instances')
                as n(name text, status text, state jsonb, pending jsonb, at bigint, created_at bigint)
            on conflict (source, name) do update set
                status = excluded.status, state = excluded.state, pending = excluded.pending,
                at = excluded.at, created_at = excluded.created_at;
        end if;
        if part ? 'rollups' then
            insert into tidings.rollup as r (level, source, at, instance, counters, gauges)
            select l.level, own.number, date_trunc(l.unit, to_timestamp(n.at / 1000.0), 'UTC'), n.instance,
                tidings.rollup_sum(n.counters), tidings.rollup_sum(n.gauges)
            from jsonb_to_recordset(part -> 'rollups')
                as n(instance text, at bigint, counters jsonb, gauges jsonb)
            cross join (values (0::smallint, 'minute'), (1::smallint, 'hour'), (2::smallint, 'day')) l(level, unit)
            group by 1, 3, 4
            on conflict (source, level, at, instance) do update set
                counters = tidings.rollup_merge(r.counters, excluded.counters),
                gauges = tidings.rollup_merge(r.gauges, excluded.gauges);
        end if;
        if part ? 'events' then
            insert into tidings.source_events (source, first_at, last_at, count, events)
            values (own.number, to_timestamp((part ->> 'first_at')::bigint / 1000.0),
                to_timestamp((part ->> 'last_at')::bigint / 1000.0), (part ->> 'count')::integer, part ->> 'events');
        end if;
        if part ? 'logs' then
            insert into tidings.source_log (source, instance, at, text)
            select own.number, n.instance, to_timestamp(n.at / 1000.0), n.text
            from jsonb_to_recordset(part -> 'logs') as n(instance text, at bigint, text text);
        end if;
        if part ? 'inbox' then
            delete from tidings.source_inbox b where b.source = own.number and b.number <= (part ->> 'inbox')::bigint;
        end if;
        for told in select m.value from jsonb_array_elements(part -> 'messages') m loop
            -- An instance with more facts than a message may weigh must not keep its source from being written.
            perform tidings.publish(
                topic => 'source:' || id, kind => told ->> 'kind', key => told ->> 'key',
                data => case when octet_length(told ->> 'data') <= data_bytes_max then (told ->> 'data')::json
                    else json_build_object('source', id, 'instance', told ->> 'key', 'truncated', true) end);
        end loop;
    end loop;
end
$$;
comment on function tidings.source_flush(jsonb) is 'Writes what a reader has gathered of its sources, each part whole or not at all.';

-- Removes what is too old, rows_max of each kind at most. Rows are found by the index on their time and removed by their
-- place, whatever the planner thinks that it knows: where it expects many that are old, it would look for the first of
-- them in the table, and where there are none it would read all of it.
create function tidings.source_sweep(rows_max integer)
returns table (events bigint, minutes bigint, hours bigint, days bigint, logs bigint, instances bigint, orphans bigint)
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_variable
declare
    now timestamptz := clock_timestamp();
    source bigint;
    kept text;
    gone bigint;
    left_over bigint;
begin
    delete from tidings.source_events e where e.ctid = any (array(
        select o.ctid from tidings.source_events o
        where o.last_at < now - interval '7 days' order by o.last_at limit rows_max for update skip locked));
    get diagnostics events = row_count;
    delete from tidings.rollup r where r.ctid = any (array(
        select o.ctid from tidings.rollup o
        where o.level = 0 and o.at < now - interval '7 days' order by o.level, o.at limit rows_max for update skip locked));
    get diagnostics minutes = row_count;
    delete from tidings.rollup r where r.ctid = any (array(
        select o.ctid from tidings.rollup o
        where o.level = 1 and o.at < now - interval '30 days' order by o.level, o.at limit rows_max for update skip locked));
    get diagnostics hours = row_count;
    delete from tidings.rollup r where r.ctid = any (array(
        select o.ctid from tidings.rollup o
        where o.level = 2 and o.at < now - interval '400 days' order by o.level, o.at limit rows_max for update skip locked));
    get diagnostics days = row_count;
    delete from tidings.source_log g where g.ctid = any (array(
        select o.ctid from tidings.source_log o
        where o.at < now - interval '7 days' order by o.at limit rows_max for update skip locked));
    get diagnostics logs = row_count;
    delete from tidings.instance i where i.ctid = any (array(
        select o.ctid from tidings.instance o
        where o.status = 'deleted' and o.at < now - interval '7 days' order by o.at limit rows_max for update skip locked));
    get diagnostics instances = row_count;
    -- What sources that were deleted have left behind.
    orphans := 0;
    for source in select g.number from tidings.source_gone g order by g.number limit 10 for update skip locked loop
        left_over := 0;
        foreach kept in array array['instance', 'rollup', 'source_events', 'source_log'] loop
            execute format(
                'delete from tidings.%1$I d where d.ctid = any (array(select o.ctid from tidings.%1$I o where o.source = $1 limit $2))', kept)
                using source, rows_max;
            get diagnostics gone = row_count;
            left_over := left_over + gone;
        end loop;
        orphans := orphans + left_over;
        if left_over = 0 then
            delete from tidings.source_gone g where g.number = source;
        end if;
        exit when orphans >= rows_max;
    end loop;
    return next;
end
$$;
comment on function tidings.source_sweep(integer) is 'Removes what is too old, rows_max of each kind at most.';
