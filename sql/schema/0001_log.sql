-- The log: one gapless sequence of messages, in commit order.
-- Everything lives in the schema `tidings`; nothing outside it is touched.
-- Functions are called by the service; they name every object in full, so that no search_path matters.

create table tidings.log (
    only_row boolean primary key default true check (only_row),
    epoch text not null check (epoch ~ '^[a-z0-9]{1,16}$'),
    head bigint not null default 0,
    newest timestamptz not null default to_timestamp(0),
    kept_from bigint not null default 1,
    made_to bigint not null default 0,
    partition_rows bigint not null default 1000000 check (partition_rows >= 100),
    data_bytes_max integer not null default 262144,
    idempotency_s integer not null default 86400
) with (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
comment on table tidings.log is 'One row: where the log stands. Its lock is the order of the log.';
comment on column tidings.log.only_row is 'Keeps the table at one row.';
comment on column tidings.log.epoch is 'The life of this log; renewed when the log no longer continues what was read from it.';
comment on column tidings.log.head is 'The highest seq given out.';
comment on column tidings.log.newest is 'When the newest message was appended: the clock may step back, and after a failover it is another one; the log may not.';
comment on column tidings.log.kept_from is 'The lowest seq that retention has kept.';
comment on column tidings.log.made_to is 'The highest seq for which a partition exists.';
comment on column tidings.log.partition_rows is 'How many seqs a new partition holds.';
comment on column tidings.log.data_bytes_max is 'The largest data that tidings.publish takes; written by the replicas from their settings.';
comment on column tidings.log.idempotency_s is 'For how long an idempotency key is remembered; written by the replicas from their settings.';

create table tidings.message (
    seq bigint not null,
    at timestamptz not null,
    expires_at timestamptz,
    class smallint not null check (class between 0 and 1),
    priority smallint not null check (priority between 0 and 2),
    topic text collate "C" not null check (topic ~ '^[A-Za-z0-9_.:/@-]{1,200}$'),
    kind text,
    key text,
    data text not null,
    primary key (seq)
) partition by range (seq);
create index message_topic_seq on tidings.message (topic, seq);
comment on table tidings.message is 'The messages, by ranges of seq, so that retention drops whole partitions. What a replica could not read it could not apply either, nor anything after it, hence the checks.';
comment on column tidings.message.seq is 'Its number: no gaps, in commit order.';
comment on column tidings.message.at is 'When it was appended, under the lock of the log: never earlier than a lower seq.';
comment on column tidings.message.expires_at is 'From here on it is not delivered any more.';
comment on column tidings.message.class is '0 event, 1 state; signals are not kept.';
comment on column tidings.message.priority is '0 high, 1 normal, 2 low.';
comment on column tidings.message.topic is 'What it was published under.';
comment on column tidings.message.kind is 'The publisher''s word for what it is.';
comment on column tidings.message.key is 'Within its topic, what a state is the state of.';
comment on column tidings.message.data is 'JSON, byte for byte as it was published.';

create table tidings.partition (
    first_seq bigint primary key,
    last_seq bigint not null
);
comment on table tidings.partition is 'The partitions of message; retention reads it instead of the catalogue.';
comment on column tidings.partition.first_seq is 'The lowest seq it can hold.';
comment on column tidings.partition.last_seq is 'The highest seq it can hold.';

create table tidings.writer (
    slot integer generated always as identity primary key,
    fence bigint not null default 1,
    replica text not null,
    used_at timestamptz not null default clock_timestamp(),
    batch bigint not null default 0,
    epoch text,
    at timestamptz,
    first_seq bigint,
    fresh integer,
    seqs bigint[],
    duplicates boolean[]
) with (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
comment on table tidings.writer is 'One row per lane of a replica: which batch it wrote last, and what came of it.';
comment on column tidings.writer.slot is 'The lane''s number.';
comment on column tidings.writer.fence is 'Grows when another replica takes the slot; whoever holds an older one writes nothing.';
comment on column tidings.writer.replica is 'Who holds it, for people.';
comment on column tidings.writer.used_at is 'When its holder last wrote or renewed; idle ones are given to others.';
comment on column tidings.writer.batch is 'The number of the last batch that was committed.';
comment on column tidings.writer.epoch is 'The epoch in which that batch was written.';
comment on column tidings.writer.at is 'When that batch was appended.';
comment on column tidings.writer.first_seq is 'The first new seq of that batch.';
comment on column tidings.writer.fresh is 'How many new seqs that batch took.';
comment on column tidings.writer.seqs is 'The seq of each draft, where some were duplicates; else null.';
comment on column tidings.writer.duplicates is 'Which drafts were duplicates, where some were; else null.';

create table tidings.idempotency (
    key text collate "C" primary key,
    seq bigint not null,
    at timestamptz not null
);
create index idempotency_at on tidings.idempotency (at);
comment on table tidings.idempotency is 'What was published under an idempotency key, so that a retry is answered and not doubled.';
comment on column tidings.idempotency.key is 'The key, with the scope of who published before it.';
comment on column tidings.idempotency.seq is 'The seq that the first publish got.';
comment on column tidings.idempotency.at is 'When that was.';

create table tidings.outbox (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    ttl_s integer,
    class smallint not null check (class between 0 and 1),
    priority smallint not null check (priority between 0 and 2),
    topic text collate "C" not null check (topic ~ '^[A-Za-z0-9_.:/@-]{1,200}$'),
    kind text,
    key text,
    idempotency_key text,
    data text not null
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
comment on table tidings.outbox is 'Messages published inside transactions of the application; a replica moves them to the log after their commit.';
comment on column tidings.outbox.id is 'The order of publishing within a transaction, and of transactions that followed one another.';
comment on column tidings.outbox.at is 'When tidings.publish was called.';
comment on column tidings.outbox.ttl_s is 'As in the published message.';
comment on column tidings.outbox.class is 'As in message.';
comment on column tidings.outbox.priority is 'As in message.';
comment on column tidings.outbox.topic is 'As in message.';
comment on column tidings.outbox.kind is 'As in message.';
comment on column tidings.outbox.key is 'As in message.';
comment on column tidings.outbox.idempotency_key is 'With its scope, as in idempotency.';
comment on column tidings.outbox.data is 'As in message.';

create table tidings.duty (
    name text primary key
);
comment on table tidings.duty is 'What one replica does at a time: whoever locks the row (SKIP LOCKED) does it, the others pass on.';
comment on column tidings.duty.name is 'relay: moving the outbox to the log. retention: dropping what is too old.';

insert into tidings.log (epoch) values (left(replace(gen_random_uuid()::text, '-', ''), 6));
insert into tidings.duty (name) values ('relay'), ('retention');

-- Makes partitions up to `wanted`. The caller holds the lock of the log row.
-- A table made apart and then attached takes no lock on `message` that readers would notice.
create function tidings.partition_make(wanted bigint) returns void
language plpgsql as $$
declare
    state tidings.log;
    first_new bigint;
    last_new bigint;
    name text;
begin
    select * into strict state from tidings.log;
    while state.made_to < wanted loop
        first_new := state.made_to + 1;
        last_new := state.made_to + state.partition_rows;
        name := 'message_' || first_new;
        execute format('create table tidings.%I (like tidings.message including all)', name);
        execute format('alter table tidings.message attach partition tidings.%I for values from (%s) to (%s)', name, first_new, last_new + 1);
        insert into tidings.partition (first_seq, last_seq) values (first_new, last_new);
        update tidings.log set made_to = last_new returning * into state;
    end loop;
end $$;
comment on function tidings.partition_make(bigint) is 'Makes partitions until a seq has one.';

-- Gives numbers to a batch and stores it. The order of the log is the order in which this takes the row of `log`.
create function tidings.log_append(
    topics text[], datas text[], kinds text[], classes smallint[], keys text[], priorities smallint[], ttls integer[], idempotency_keys text[],
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
        insert into tidings.message (seq, at, expires_at, class, priority, topic, kind, key, data)
        select before + u.place, log_append.at, log_append.at + make_interval(secs => u.ttl), u.class, u.priority, u.topic, u.kind, u.key, u.data
        from unnest(topics, datas, kinds, classes, keys, priorities, ttls) with ordinality u(topic, data, kind, class, key, priority, ttl, place);
    else
        insert into tidings.message (seq, at, expires_at, class, priority, topic, kind, key, data)
        select u.seq, log_append.at, log_append.at + make_interval(secs => u.ttl), u.class, u.priority, u.topic, u.kind, u.key, u.data
        from unnest(topics, datas, kinds, classes, keys, priorities, ttls, log_append.seqs, log_append.duplicates)
            u(topic, data, kind, class, key, priority, ttl, seq, duplicate)
        where not u.duplicate;
        insert into tidings.idempotency as i (key, seq, at)
        select u.key, u.seq, log_append.at from unnest(idempotency_keys, log_append.seqs, log_append.duplicates) u(key, seq, duplicate)
        where u.key is not null and not u.duplicate
        on conflict (key) do update set seq = excluded.seq, at = excluded.at;
    end if;
end $$;
comment on function tidings.log_append(text[], text[], text[], smallint[], text[], smallint[], integer[], text[]) is 'Gives numbers to a batch and stores it, in the caller''s transaction.';

-- A lane's next batch. A repeated batch is answered as before; a stranger's is refused.
create function tidings.append(
    lane integer, lane_fence bigint, number bigint,
    topics text[], datas text[], kinds text[], classes smallint[], keys text[], priorities smallint[], ttls integer[], idempotency_keys text[])
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
    from tidings.log_append(topics, datas, kinds, classes, keys, priorities, ttls, idempotency_keys) a;
    update tidings.writer w set batch = number, used_at = own.at, epoch = own.epoch, at = own.at,
        first_seq = own.first_seq, fresh = own.fresh, seqs = own.seqs, duplicates = own.duplicates
    where w.slot = lane and w.fence = lane_fence and w.batch = number - 1;
    -- Between the look above and here the slot may have been taken: then nothing of this stays.
    if not found then
        raise exception 'writer slot % was taken by another replica', lane using errcode = 'TD001';
    end if;
    return query select own.epoch, (extract(epoch from own.at) * 1000)::bigint, own.first_seq, own.fresh, own.seqs, own.duplicates;
end $$;
comment on function tidings.append(integer, bigint, bigint, text[], text[], text[], smallint[], text[], smallint[], integer[], text[]) is 'Appends a lane''s next batch, once.';

-- Tells every replica of a lane's last batch. Takes its numbers from the slot, so that a batch that failed announces nothing.
create function tidings.announce(lane integer, lane_fence bigint, number bigint, counts integer[], bodies text[]) returns void
language plpgsql as $$
declare
    own tidings.writer;
    part integer;
    part_first bigint;
    part_last bigint;
    at_ms bigint;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.writer w where w.slot = lane and w.fence = lane_fence and w.batch = number;
    if not found or own.fresh = 0 then
        return;
    end if;
    at_ms := (extract(epoch from own.at) * 1000)::bigint;
    -- Which of the bodies were duplicates only this side knows; the replicas then read the range.
    if own.fresh <> (select sum(c) from unnest(counts) c) then
        counts := array[own.fresh];
        bodies := array['-'];
    end if;
    part_first := own.first_seq;
    for part in 1 .. cardinality(counts) loop
        part_last := part_first + counts[part] - 1;
        perform pg_notify('tidings', concat_ws(' ', 'a', own.epoch, part_first, part_last, at_ms, bodies[part]));
        part_first := part_last + 1;
    end loop;
end $$;
comment on function tidings.announce(integer, bigint, bigint, integer[], text[]) is 'Announces a lane''s last batch on the one channel.';

-- A slot for a lane: one that nobody has used for a while, or a new one.
create function tidings.writer_claim(holder text, idle_s integer) returns table (slot integer, fence bigint)
language plpgsql as $$
begin
    return query
    update tidings.writer w set fence = w.fence + 1, replica = holder, batch = 0, used_at = clock_timestamp(),
        epoch = null, at = null, first_seq = null, fresh = null, seqs = null, duplicates = null
    where w.slot = (
        select i.slot from tidings.writer i where i.used_at < clock_timestamp() - make_interval(secs => idle_s)
        order by i.slot limit 1 for update skip locked)
    returning w.slot, w.fence;
    if not found then
        return query insert into tidings.writer as w (replica) values (holder) returning w.slot, w.fence;
    end if;
end $$;
comment on function tidings.writer_claim(text, integer) is 'Gives a lane a writer slot of its own.';

-- Publishing from SQL, inside any transaction of the application.
-- It must not take the lock of the log, which would be held until a foreign transaction ends.
create function tidings.publish(
    topic text, data json, kind text default null, class text default 'event', key text default null,
    priority text default 'normal', ttl_s integer default null, idempotency_key text default null)
returns void
language plpgsql security definer set search_path = pg_catalog as $$
#variable_conflict use_variable
declare
    class_number smallint := array_position(array['event', 'state', 'signal'], class) - 1;
    priority_number smallint := array_position(array['high', 'normal', 'low'], priority) - 1;
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
        body := concat('[[', to_json(topic), ',', data::text, ',', coalesce(to_json(kind), 'null'), ',2,', coalesce(to_json(key), 'null'), ',', priority_number, ',null]]');
        if octet_length(body) > 7800 then
            raise exception 'a signal rides in a notification and carries at most 7000 bytes; publish it as class state' using errcode = '54000';
        end if;
        perform pg_notify('tidings', concat_ws(' ', 's', '-', (extract(epoch from clock_timestamp()) * 1000)::bigint, body));
        return;
    end if;
    insert into tidings.outbox (ttl_s, class, priority, topic, kind, key, idempotency_key, data)
    values (ttl_s, class_number, priority_number, topic, kind, key, 's ' || idempotency_key, data::text);
    -- The same text again and again: one notification a transaction, however much it publishes.
    perform pg_notify('tidings', 'o');
end $$;
comment on function tidings.publish(text, json, text, text, text, text, integer, text) is 'Publishes a message when the surrounding transaction commits.';

-- Moves the oldest outbox rows to the log, in one transaction, in order.
-- One replica at a time: with two, the rows of one transaction could overtake each other.
create function tidings.outbox_relay(rows_max integer, bytes_max bigint)
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
    select count(*)::integer as count, bool_or(g.idempotency_key is not null) as keyed,
        array_agg(g.topic order by g.id) as topics, array_agg(g.data order by g.id) as datas, array_agg(g.kind order by g.id) as kinds,
        array_agg(g.class order by g.id) as classes, array_agg(g.key order by g.id) as keys, array_agg(g.priority order by g.id) as priorities,
        array_agg(g.ttl_s order by g.id) as ttls, array_agg(g.idempotency_key order by g.id) as idempotency_keys
    into given from gone g;
    if given.count = 0 then
        return;
    end if;
    select * into done from tidings.log_append(given.topics, given.datas, given.kinds, given.classes, given.keys, given.priorities, given.ttls,
        case when given.keyed then given.idempotency_keys end);
    return query select given.count, done.epoch, done.first_seq, done.fresh, (extract(epoch from done.at) * 1000)::bigint;
end $$;
comment on function tidings.outbox_relay(integer, bigint) is 'Moves the oldest outbox rows to the log, one replica at a time.';

-- The place before the first message at or after a moment: a binary search, since seq and time grow together.
create function tidings.seq_before(moment timestamptz) returns bigint
language plpgsql stable as $$
declare
    low bigint;
    high bigint;
    middle bigint;
begin
    select l.kept_from, l.head + 1 into low, high from tidings.log l;
    while low < high loop
        middle := (low + high) / 2;
        if (select m.at from tidings.message m where m.seq = middle) < moment then
            low := middle + 1;
        else
            high := middle;
        end if;
    end loop;
    return low - 1;
end $$;
comment on function tidings.seq_before(timestamptz) is 'The seq before the first message at or after a moment.';

-- The next seqs of one topic. The pairs are compared as pairs and the sort is forbidden, so that only the index
-- on (topic, seq) can serve, whatever the planner thinks that it knows: with `topic = wanted` the order by topic is void,
-- and the primary key would do, which for a rare topic reads everything in between.
-- The bounds on seq alone say which partitions to look into.
create function tidings.topic_seqs(wanted text, after bigint, until bigint, rows_max bigint) returns setof bigint
language plpgsql stable set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off as $$
begin
    return query
    select m.seq from tidings.message m
    where (m.topic, m.seq) > (wanted collate "C", after) and (m.topic, m.seq) <= (wanted collate "C", until)
      and m.seq > after and m.seq <= until
      and (m.expires_at is null or m.expires_at > clock_timestamp())
    order by m.topic, m.seq limit rows_max;
end $$;
comment on function tidings.topic_seqs(text, bigint, bigint, bigint) is 'The next seqs of one topic, by its index.';

-- Gives the log a new life, unless somebody else has done so.
create function tidings.epoch_renew(old text) returns void
language plpgsql as $$
declare
    renewed text;
begin
    update tidings.log l set epoch = left(replace(gen_random_uuid()::text, '-', ''), 6) where l.epoch = old returning l.epoch into renewed;
    if found then
        perform pg_notify('tidings', concat_ws(' ', 'e', renewed));
    end if;
end $$;
comment on function tidings.epoch_renew(text) is 'Renews the epoch by compare-and-set.';

-- Makes the next partition while the current one still has room.
create function tidings.partition_ahead() returns void
language plpgsql as $$
begin
    if (select l.head + l.partition_rows > l.made_to from tidings.log l) then
        perform from tidings.log l for update;
        perform tidings.partition_make(l.head + l.partition_rows) from tidings.log l;
    end if;
end $$;
comment on function tidings.partition_ahead() is 'Makes the next partition ahead of need.';

-- The oldest full partition whose newest message is older than what is kept; moves kept_from past it.
-- Two steps in two transactions: here the row of the log is locked, in partition_drop the partitions are; an appender takes both.
create function tidings.partition_expire(retention_s integer) returns bigint
language plpgsql as $$
declare
    oldest tidings.partition;
begin
    select p.* into oldest from tidings.partition p order by p.first_seq limit 1;
    if not found or oldest.last_seq >= (select l.head from tidings.log l) then
        return null;
    end if;
    if not exists (select from tidings.message m where m.seq = oldest.last_seq and m.at < clock_timestamp() - make_interval(secs => retention_s)) then
        return null;
    end if;
    update tidings.log l set kept_from = oldest.last_seq + 1 where l.kept_from <= oldest.last_seq;
    return oldest.first_seq;
end $$;
comment on function tidings.partition_expire(integer) is 'Marks the oldest partition as no longer kept, if it is too old, and returns its first seq.';

-- Detaching takes all of `message` for itself for a moment. Whoever comes while it waits for that waits behind it,
-- so it waits 200 ms at most, and is tried again at the next round.
create function tidings.partition_drop(first bigint) returns bigint
language plpgsql set lock_timeout = '200ms' as $$
declare
    gone bigint;
begin
    perform from tidings.duty d where d.name = 'retention' for update skip locked;
    if not found then
        return 0;
    end if;
    delete from tidings.partition p where p.first_seq = first returning p.last_seq - p.first_seq + 1 into gone;
    if not found then
        return 0;
    end if;
    execute format('alter table tidings.message detach partition tidings.%I', 'message_' || first);
    execute format('drop table tidings.%I', 'message_' || first);
    return gone;
end $$;
comment on function tidings.partition_drop(bigint) is 'Drops a partition that partition_expire has marked; makes readers wait for 200 ms at most.';
