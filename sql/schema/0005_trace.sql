-- Where a message belongs among what its publisher traces, carried from publish to delivery.

-- Both tables change in an instant. But who reads for long (a backup), or has published in a transaction that stays open,
-- holds them, and everybody else would wait behind whoever waits for that: so it waits 200 ms at most, again and again.
do $$
begin
    for attempt in 1 .. 200 loop
        begin
            perform set_config('lock_timeout', '200ms', true);
            lock table tidings.outbox, tidings.message in access exclusive mode;
            perform set_config('lock_timeout', '0', true);
            return;
        exception when lock_not_available then
            perform pg_sleep(0.05);
        end;
    end loop;
    raise exception 'tidings.outbox or tidings.message was never free: end what holds it (pg_locks), or wait for it if it is a backup, and start again';
end $$;

alter table tidings.outbox add column trace text;
alter table tidings.message add column trace text;
comment on column tidings.outbox.trace is 'As in message.';
comment on column tidings.message.trace is 'The traceparent (W3C Trace Context) under which it was published; whatever is none is passed over.';

-- As before, with traces: null where none of the batch has one. The one without stays as it is, for tasks and notices, which have
-- none, and for replicas of the version before: handing on to this one made a batch of 500 take up to twice as long.
create function tidings.log_append(
    topics text[], datas text[], kinds text[], classes smallint[], keys text[], priorities smallint[], ttls integer[], idempotency_keys text[], traces text[],
    out epoch text, out at timestamptz, out first_seq bigint, out fresh integer, out seqs bigint[], out duplicates boolean[])
language plpgsql as $$
declare
    before bigint;
    made bigint;
    remembered_s integer;
begin
    -- The flush is awaited by a barrier, after this lock is free again.
    perform set_config('synchronous_commit', 'off', true);
    fresh := cardinality(topics);
    -- The time is read under the lock and never steps back, so that no message is older than one before it.
    -- What is shown has milliseconds, so what is compared has no more.
    if idempotency_keys is null then
        update tidings.log l set head = l.head + fresh, newest = greatest(l.newest, date_trunc('milliseconds', clock_timestamp()))
        returning l.head - fresh, l.epoch, l.made_to, l.newest into before, epoch, made, at;
    else
        select l.head, l.epoch, l.made_to, l.idempotency_s into before, epoch, made, remembered_s from tidings.log l for update;
        with given as (
            select u.place, u.key, i.seq as old, row_number() over (partition by u.key order by u.place) as nth
            from unnest(idempotency_keys) with ordinality u(key, place)
            left join tidings.idempotency i on i.key = u.key and i.at > clock_timestamp() - make_interval(secs => remembered_s)
        ), judged as (
            select place, key, old, key is null or (old is null and nth = 1) as is_fresh from given
        ), numbered as (
            select place, key, old, is_fresh, before + count(*) filter (where is_fresh) over (order by place) as number from judged
        ), placed as (
            select place, is_fresh,
                case when is_fresh then number when old is not null then old
                     else first_value(number) over (partition by key order by place) end as seq
            from numbered
        )
        select array_agg(p.seq order by p.place), array_agg(not p.is_fresh order by p.place), count(*) filter (where p.is_fresh)
        into seqs, duplicates, fresh from placed p;
        update tidings.log l set head = l.head + fresh, newest = greatest(l.newest, date_trunc('milliseconds', clock_timestamp()))
        returning l.newest into at;
    end if;
    first_seq := before + 1;
    if before + fresh > made then
        perform tidings.partition_make(before + fresh);
    end if;
    if idempotency_keys is null then
        insert into tidings.message (seq, at, expires_at, class, priority, topic, kind, key, data, trace)
        select before + u.place, log_append.at, log_append.at + make_interval(secs => u.ttl), u.class, u.priority, u.topic, u.kind, u.key, u.data, u.trace
        from unnest(topics, datas, kinds, classes, keys, priorities, ttls, traces) with ordinality u(topic, data, kind, class, key, priority, ttl, trace, place);
    else
        insert into tidings.message (seq, at, expires_at, class, priority, topic, kind, key, data, trace)
        select u.seq, log_append.at, log_append.at + make_interval(secs => u.ttl), u.class, u.priority, u.topic, u.kind, u.key, u.data, u.trace
        from unnest(topics, datas, kinds, classes, keys, priorities, ttls, traces, log_append.seqs, log_append.duplicates)
            u(topic, data, kind, class, key, priority, ttl, trace, seq, duplicate)
        where not u.duplicate;
        insert into tidings.idempotency as i (key, seq, at)
        select u.key, u.seq, log_append.at from unnest(idempotency_keys, log_append.seqs, log_append.duplicates) u(key, seq, duplicate)
        where u.key is not null and not u.duplicate
        on conflict (key) do update set seq = excluded.seq, at = excluded.at;
    end if;
end $$;
comment on function tidings.log_append(text[], text[], text[], smallint[], text[], smallint[], integer[], text[], text[]) is 'Gives numbers to a batch and stores it, in the caller''s transaction.';

-- As before, with traces. The one without stays, for replicas of the version before.
create function tidings.append(
    lane integer, lane_fence bigint, number bigint,
    topics text[], datas text[], kinds text[], classes smallint[], keys text[], priorities smallint[], ttls integer[], idempotency_keys text[], traces text[])
returns table (epoch text, at_ms bigint, first_seq bigint, fresh integer, seqs bigint[], duplicates boolean[])
language plpgsql as $$
declare
    own tidings.writer;
begin
    select * into own from tidings.writer w where w.slot = lane;
    if own.fence is distinct from lane_fence then
        raise exception 'writer slot % was taken by another replica', lane using errcode = 'TD001';
    end if;
    if own.batch = number then
        return query select own.epoch, (extract(epoch from own.at) * 1000)::bigint, own.first_seq, own.fresh, own.seqs, own.duplicates;
        return;
    end if;
    if own.batch <> number - 1 then
        raise exception 'writer slot % is at batch %, not before %', lane, own.batch, number using errcode = 'TD002';
    end if;
    select a.epoch, a.at, a.first_seq, a.fresh, a.seqs, a.duplicates
    into own.epoch, own.at, own.first_seq, own.fresh, own.seqs, own.duplicates
    from tidings.log_append(topics, datas, kinds, classes, keys, priorities, ttls, idempotency_keys, traces) a;
    update tidings.writer w set batch = number, used_at = own.at, epoch = own.epoch, at = own.at,
        first_seq = own.first_seq, fresh = own.fresh, seqs = own.seqs, duplicates = own.duplicates
    where w.slot = lane and w.fence = lane_fence and w.batch = number - 1;
    -- Between the look above and here the slot may have been taken: then nothing of this stays.
    if not found then
        raise exception 'writer slot % was taken by another replica', lane using errcode = 'TD001';
    end if;
    return query select own.epoch, (extract(epoch from own.at) * 1000)::bigint, own.first_seq, own.fresh, own.seqs, own.duplicates;
end $$;
comment on function tidings.append(integer, bigint, bigint, text[], text[], text[], smallint[], text[], smallint[], integer[], text[], text[]) is 'Appends a lane''s next batch, once.';

-- As before, and under the trace that the setting `tidings.traceparent` of the transaction or session names.
create or replace function tidings.publish(
    topic text, data json, kind text default null, class text default 'event', key text default null,
    priority text default 'normal', ttl_s integer default null, idempotency_key text default null)
returns void
language plpgsql security definer set search_path = pg_catalog as $$
#variable_conflict use_variable
declare
    class_number smallint := array_position(array['event', 'state', 'signal'], class) - 1;
    priority_number smallint := array_position(array['high', 'normal', 'low'], priority) - 1;
    -- No parameter: whoever calls this, or was granted it, knows its signature.
    trace text := substring(current_setting('tidings.traceparent', true) from '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$');
    body text;
begin
    if topic is null or topic !~ '^[A-Za-z0-9_.:/@-]{1,200}$' then
        raise exception 'topic must be 1 to 200 bytes of A-Z a-z 0-9 _ . : / @ -' using errcode = '22023';
    end if;
    if data is null then
        raise exception 'data must be JSON; for nothing publish the JSON null: ''null''' using errcode = '22004';
    end if;
    if class_number is null then
        raise exception 'class must be event, state or signal' using errcode = '22023';
    end if;
    if priority_number is null then
        raise exception 'priority must be high, normal or low' using errcode = '22023';
    end if;
    if ttl_s < 1 then
        raise exception 'ttl_s must be at least 1' using errcode = '22023';
    end if;
    if octet_length(kind) > 200 or octet_length(key) > 200 or octet_length(idempotency_key) > 200 then
        raise exception 'kind, key and idempotency_key have at most 200 bytes' using errcode = '22023';
    end if;
    if octet_length(data::text) > (select l.data_bytes_max from tidings.log l) then
        raise exception 'data has % bytes, more than this installation takes (%)', octet_length(data::text), (select l.data_bytes_max from tidings.log l)
            using errcode = '54000';
    end if;
    if class = 'signal' then
        body := concat('[[', to_json(topic), ',', data::text, ',', coalesce(to_json(kind), 'null'), ',2,', coalesce(to_json(key), 'null'), ',', priority_number, ',null', ',' || to_json(trace)::text, ']]');
        if octet_length(body) > 7800 then
            raise exception 'a signal rides in a notification and carries at most 7000 bytes; publish it as class state' using errcode = '54000';
        end if;
        perform pg_notify('tidings', concat_ws(' ', 's', '-', (extract(epoch from clock_timestamp()) * 1000)::bigint, body));
        return;
    end if;
    insert into tidings.outbox (ttl_s, class, priority, topic, kind, key, idempotency_key, data, trace)
    values (ttl_s, class_number, priority_number, topic, kind, key, 's ' || idempotency_key, data::text, trace);
    -- The same text again and again: one notification a transaction, however much it publishes.
    perform pg_notify('tidings', 'o');
end $$;

-- As before, with traces.
create or replace function tidings.outbox_relay(rows_max integer, bytes_max bigint)
returns table (taken integer, epoch text, first_seq bigint, fresh integer, at_ms bigint)
language plpgsql as $$
declare
    done record;
    given record;
begin
    -- Every replica comes here at every hint: whoever finds nothing takes no lock and writes nothing.
    if not exists (select from tidings.outbox) then
        return;
    end if;
    -- The flush of what is moved is awaited by a barrier; of the duty's lock nothing needs to be kept.
    perform set_config('synchronous_commit', 'off', true);
    perform from tidings.duty d where d.name = 'relay' for update skip locked;
    if not found then
        return;
    end if;
    with due as (
        select o.id, sum(octet_length(o.data)) over (order by o.id) - octet_length(o.data) as bytes_before
        from (select i.id, i.data from tidings.outbox i order by i.id limit rows_max) o
    ), gone as (
        delete from tidings.outbox o using due where o.id = due.id and due.bytes_before < bytes_max returning o.*
    )
    select count(*)::integer as count, bool_or(g.idempotency_key is not null) as keyed, bool_or(g.trace is not null) as traced,
        array_agg(g.topic order by g.id) as topics, array_agg(g.data order by g.id) as datas, array_agg(g.kind order by g.id) as kinds,
        array_agg(g.class order by g.id) as classes, array_agg(g.key order by g.id) as keys, array_agg(g.priority order by g.id) as priorities,
        array_agg(g.ttl_s order by g.id) as ttls, array_agg(g.idempotency_key order by g.id) as idempotency_keys,
        array_agg(g.trace order by g.id) as traces
    into given from gone g;
    if given.count = 0 then
        return;
    end if;
    select * into done from tidings.log_append(given.topics, given.datas, given.kinds, given.classes, given.keys, given.priorities, given.ttls,
        case when given.keyed then given.idempotency_keys end, case when given.traced then given.traces end);
    return query select given.count, done.epoch, done.first_seq, done.fresh, (extract(epoch from done.at) * 1000)::bigint;
end $$;
