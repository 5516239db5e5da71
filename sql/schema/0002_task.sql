-- Tasks: batch operations over many items, worked on under a lease.
-- Whoever holds a task's lease has its term; a write with another term changes nothing.
-- Locks are taken in one order: the task, its items, the log. The log's lock comes last and is held briefly.

create table tidings.task (
    number bigint generated always as identity primary key,
    id text collate "C" not null unique,
    idempotency_key text collate "C" unique,
    action text collate "C" not null,
    owner text collate "C",
    status text not null default 'pending'
        check (status in ('pending', 'running', 'paused', 'completed', 'partial', 'failed', 'cancelled', 'interrupted')),
    cancelling boolean not null default false,
    external boolean not null,
    term bigint not null default 0,
    held boolean not null default false,
    replica text,
    due_at timestamptz default clock_timestamp(),
    lease_ms bigint,
    takeovers integer not null default 0,
    attempt integer not null default 1,
    total integer not null,
    succeeded integer not null default 0,
    failed integer not null default 0,
    cancelled integer not null default 0,
    in_flight text[] not null default '{}',
    message text,
    error text,
    concurrency integer not null,
    retries integer not null,
    item_timeout_ms integer not null,
    at_most_once boolean not null,
    executor text not null,
    meta text not null,
    seq bigint not null default 0,
    precedence bigint not null,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    updated_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);
-- What a report changes stands in no index, so that its row versions stay on their page.
create index task_due on tidings.task ((not external or cancelling), due_at) where due_at is not null;
create index task_waiting on tidings.task ((not external or cancelling), precedence, number) where due_at is not null;
create index task_held on tidings.task (replica, coalesce(owner, '')) where held;
create index task_owner on tidings.task (owner, number);
create index task_open on tidings.task (coalesce(owner, ''), precedence) where finished_at is null;
create index task_finished on tidings.task (finished_at) where finished_at is not null;
comment on table tidings.task is 'Batch operations, one row each; its lock is the order of everything that happens to the task.';
comment on column tidings.task.number is 'The order of submission.';
comment on column tidings.task.id is 'Its name for clients; task:<id> is its topic.';
comment on column tidings.task.idempotency_key is 'With the scope of who submitted it before it.';
comment on column tidings.task.action is 'The submitter''s word for what is done.';
comment on column tidings.task.owner is 'The user it belongs to; null when a server submitted it for nobody.';
comment on column tidings.task.status is 'Where it stands; the last five are final for an attempt.';
comment on column tidings.task.cancelling is 'Somebody wants it cancelled, and its holder has items in hand.';
comment on column tidings.task.external is 'Claimed by workers over HTTP, not by replicas.';
comment on column tidings.task.term is 'Grows with each claim; whoever holds an older one writes nothing.';
comment on column tidings.task.held is 'Whether somebody holds its lease, even if that has run out.';
comment on column tidings.task.replica is 'The replica or worker that holds it or held it last.';
comment on column tidings.task.due_at is 'When it may be claimed: the end of the lease if it is held; null when there is nothing to do.';
comment on column tidings.task.lease_ms is 'For how long each report of its holder renews the lease.';
comment on column tidings.task.takeovers is 'How many leases in a row ran out without one finished item.';
comment on column tidings.task.attempt is 'Grows with each retry.';
comment on column tidings.task.total is 'How many items it has.';
comment on column tidings.task.succeeded is 'How many items have succeeded.';
comment on column tidings.task.failed is 'How many items have failed in this attempt.';
comment on column tidings.task.cancelled is 'How many items will not be run in this attempt.';
comment on column tidings.task.in_flight is 'The items that its holder has in hand.';
comment on column tidings.task.message is 'What is to be said of it, for people.';
comment on column tidings.task.error is 'Why it as a whole could not be run.';
comment on column tidings.task.concurrency is 'How many items may be in hand at once.';
comment on column tidings.task.retries is 'How often an item is tried again.';
comment on column tidings.task.item_timeout_ms is 'How long one try of an item may take.';
comment on column tidings.task.at_most_once is 'Items in hand when a lease runs out are failed, not run again.';
comment on column tidings.task.executor is 'JSON: how an item is run.';
comment on column tidings.task.meta is 'JSON, byte for byte as it was submitted.';
comment on column tidings.task.seq is 'The seq of the last message about it, which says what this row says.';
comment on column tidings.task.precedence is 'Of what is due the lowest is claimed first; task_precedence gives it.';
comment on column tidings.task.created_at is 'When it was submitted.';
comment on column tidings.task.started_at is 'When this attempt was first claimed.';
comment on column tidings.task.updated_at is 'When the last message about it was appended.';
comment on column tidings.task.finished_at is 'When this attempt ended; null while it goes on.';

create table tidings.task_item (
    task bigint not null,
    position integer not null,
    name text collate "C" not null,
    data text,
    status text not null default 'pending' check (status in ('pending', 'succeeded', 'failed', 'cancelled')),
    error text,
    attempt integer,
    finished_at timestamptz,
    primary key (task, position),
    unique (task, name)
) with (fillfactor = 80);
comment on table tidings.task_item is 'The items of tasks. No foreign key: checking it would double the cost of submitting 100,000.';
comment on column tidings.task_item.task is 'The number of its task.';
comment on column tidings.task_item.position is 'Its place in the order of submission, from 1.';
comment on column tidings.task_item.name is 'Unique within its task.';
comment on column tidings.task_item.data is 'JSON, byte for byte as it was submitted.';
comment on column tidings.task_item.status is 'Pending until it is finished; whether it is in hand stands in the task''s in_flight.';
comment on column tidings.task_item.error is 'Why it failed.';
comment on column tidings.task_item.attempt is 'The attempt of the task in which it was finished.';
comment on column tidings.task_item.finished_at is 'When it was finished.';

-- What a function has appended to the log, for its announcement.
create type tidings.told as (
    epoch text, at_ms bigint, first_seq bigint, topics text[], datas text[], finals boolean[], ids text[]);

create function tidings.time_text(at timestamptz) returns text
language sql stable as $$
    select to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;
comment on function tidings.time_text(timestamptz) is 'RFC 3339 in UTC with milliseconds, as on the wire.';

-- The data of a message about a task; `store/task.rs` writes the same for tasks in memory.
create function tidings.task_data(t tidings.task, succeeded_items text[], failed_items json, truncated boolean) returns text
language sql stable as $$
    -- Of a row, since json_build_object puts a space on both sides of each colon.
    select row_to_json(d)::text from (select
        t.id, t.action, t.owner, t.status,
        t.succeeded + t.failed as current, t.total, t.succeeded, t.failed, t.cancelled,
        -- Cut, not rounded: 100 means all of them.
        trim_scale(trunc((t.succeeded + t.failed) * 100.0 / t.total, 2)) as progress,
        t.in_flight, t.message, t.error, t.attempt, t.replica,
        tidings.time_text(t.created_at) as created_at, tidings.time_text(t.started_at) as started_at,
        tidings.time_text(t.updated_at) as updated_at, tidings.time_text(t.finished_at) as finished_at,
        t.concurrency, t.seq,
        coalesce(succeeded_items, '{}') as succeeded_items, coalesce(failed_items, '[]') as failed_items,
        truncated) d
$$;
comment on function tidings.task_data(tidings.task, text[], json, boolean) is 'What a message says of a task.';

-- The failed items of a task, as many as one message may list.
create function tidings.task_failed_items(given bigint, out items json, out listed integer)
language sql stable as $$
    select json_agg(row_to_json(o) order by f.position), count(*)::integer
    from (
        select i.position, i.name, i.error,
            sum(octet_length(i.name) + coalesce(octet_length(i.error), 0) + 24) over (order by i.position) as bytes
        from (
            select * from tidings.task_item n
            where n.task = given and n.status = 'failed' order by n.position limit 1000
        ) i
    ) f, lateral (select f.name, f.error) o
    where f.bytes <= 131072
$$;
comment on function tidings.task_failed_items(bigint) is 'The failed items that the last message about an attempt lists.';

-- Appends what is to be said of tasks: on the topic of each, and on that of its owner.
-- The caller holds the rows of the tasks. Of one that is finished it is the last word of this attempt.
create function tidings.task_say(given bigint[], succeeded_items text[], failed_items json, truncated boolean) returns tidings.told
language plpgsql as $$
declare
    told tidings.told;
    one tidings.task;
    done record;
    lists json[] := '{}';
    cut boolean[] := '{}';
    place bigint;
    each integer;
    data text;
    is_final boolean;
    names record;
begin
    if coalesce(cardinality(given), 0) = 0 then
        return null;
    end if;
    -- Whatever takes long is read before the log is locked.
    for each in 1 .. cardinality(given) loop
        select * into one from tidings.task t where t.number = given[each];
        if one.finished_at is null then
            lists := lists || failed_items;
            cut := cut || truncated;
        else
            select * into names from tidings.task_failed_items(one.number);
            lists := lists || names.items;
            cut := cut || (truncated or one.failed > names.listed);
        end if;
    end loop;
    told.topics := '{}';
    told.datas := '{}';
    told.finals := '{}';
    told.ids := '{}';
    select l.head into place from tidings.log l for update;
    for each in 1 .. cardinality(given) loop
        update tidings.task t set seq = place + 1, updated_at = clock_timestamp() where t.number = given[each] returning t.* into one;
        is_final := one.finished_at is not null;
        data := tidings.task_data(one, succeeded_items, lists[each], cut[each]);
        told.topics := told.topics || ('task:' || one.id);
        told.datas := told.datas || data;
        told.finals := told.finals || is_final;
        told.ids := told.ids || one.id;
        place := place + 1;
        if one.owner is not null then
            told.topics := told.topics || ('user:' || one.owner);
            told.datas := told.datas || data;
            told.finals := told.finals || is_final;
            told.ids := told.ids || one.id;
            place := place + 1;
        end if;
    end loop;
    -- Both kinds leave a session's queue at one priority: a last word that overtook a state would be followed by an older one.
    select * into done from tidings.log_append(
        told.topics, told.datas,
        (select array_agg(case when f then 'task.finished' else 'task.progress' end order by n) from unnest(told.finals) with ordinality u(f, n)),
        (select array_agg(case when f then 0 else 1 end::smallint order by n) from unnest(told.finals) with ordinality u(f, n)),
        told.ids,
        array_fill(0::smallint, array[cardinality(told.topics)]),
        array_fill(null::integer, array[cardinality(told.topics)]),
        null);
    told.epoch := done.epoch;
    told.at_ms := (extract(epoch from done.at) * 1000)::bigint;
    told.first_seq := done.first_seq;
    return told;
end $$;
comment on function tidings.task_say(bigint[], text[], json, boolean) is 'Appends the messages about tasks, in the caller''s transaction.';

-- A task and its items, set at a time. A known idempotency key is answered with the task it brought.
-- Owners take turns: a task comes one turn after the last that its owner has open, but no sooner
-- than the one that is next now. So whoever submits a thousand does not make the others wait for
-- all of them, and nobody who waits is passed for ever.
create function tidings.task_precedence(given_owner text, is_external boolean) returns bigint
language sql volatile as $$
    select greatest(
        coalesce((select t.precedence from tidings.task t where (not t.external or t.cancelling) = not is_external and t.due_at is not null and not t.held
            order by t.precedence limit 1), 0),
        coalesce((select max(t.precedence) from tidings.task t where coalesce(t.owner, '') = coalesce(given_owner, '') and t.finished_at is null), 0) + 1)
$$;
comment on function tidings.task_precedence(text, boolean) is 'The precedence of a task that its owner submits now.';

create function tidings.task_submit(
    given_id text, given_key text, given_action text, given_owner text, is_external boolean,
    given_concurrency integer, given_retries integer, given_timeout_ms integer, once boolean,
    given_executor text, given_meta text, names text[], datas text[])
returns table (id text, duplicate boolean, told tidings.told)
language plpgsql as $$
#variable_conflict use_column
declare
    fresh bigint;
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into tidings.task (id, idempotency_key, action, owner, external, concurrency, retries, item_timeout_ms, at_most_once, executor, meta, total, precedence)
    values (given_id, given_key, given_action, given_owner, is_external, given_concurrency, given_retries, given_timeout_ms, once,
        given_executor, given_meta, cardinality(names), tidings.task_precedence(given_owner, is_external))
    on conflict (idempotency_key) do nothing returning number into fresh;
    if fresh is null then
        return query select t.id, true, null::tidings.told from tidings.task t where t.idempotency_key = given_key;
        return;
    end if;
    insert into tidings.task_item (task, position, name, data)
    select fresh, u.place, u.name, u.data from unnest(names, datas) with ordinality u(name, data, place);
    return query select given_id, false, tidings.task_say(array[fresh], null, null, false);
end $$;
comment on function tidings.task_submit(text, text, text, text, boolean, integer, integer, integer, boolean, text, text, text[], text[]) is 'Stores a task with its items, once per idempotency key.';

-- How an attempt ended, by its counts; `domain/task.rs` decides the same.
create function tidings.task_outcome(total integer, succeeded integer, failed integer, cancelled integer) returns text
language sql immutable as $$
    select case when cancelled > 0 then 'cancelled' when succeeded = total then 'completed' when failed = total then 'failed' else 'partial' end
$$;
comment on function tidings.task_outcome(integer, integer, integer, integer) is 'The final status that follows from the counts.';

-- Its holder is gone or lets go: what was in hand may have been done, so that a task at most once fails it.
create function tidings.task_interrupt(own tidings.task) returns integer
language plpgsql as $$
declare
    lost integer := 0;
begin
    if own.at_most_once and own.held then
        update tidings.task_item i set status = 'failed', error = 'interrupted', attempt = own.attempt, finished_at = clock_timestamp()
        where i.task = own.number and i.name = any (own.in_flight) and i.status = 'pending';
        get diagnostics lost = row_count;
    end if;
    return lost;
end $$;
comment on function tidings.task_interrupt(tidings.task) is 'Fails what was in hand of a task at most once whose holder is gone or lets go.';

-- Ends an attempt whose items are finished or will not be run. The caller has moved the other counters.
create function tidings.task_end(given bigint, rest text, rest_error text, given_status text, given_error text) returns void
language plpgsql as $$
declare
    own tidings.task;
    left_over integer;
begin
    select * into strict own from tidings.task t where t.number = given;
    update tidings.task_item i set status = rest, error = rest_error, attempt = own.attempt, finished_at = clock_timestamp()
    where i.task = given and i.status = 'pending';
    get diagnostics left_over = row_count;
    if rest = 'failed' then
        own.failed := own.failed + left_over;
    else
        own.cancelled := own.cancelled + left_over;
    end if;
    update tidings.task t set failed = own.failed, cancelled = own.cancelled, held = false, due_at = null, in_flight = '{}', cancelling = false,
        message = null, error = given_error, finished_at = clock_timestamp(),
        status = coalesce(given_status, tidings.task_outcome(own.total, own.succeeded, own.failed, own.cancelled))
    where t.number = given;
end $$;
comment on function tidings.task_end(bigint, text, text, text, text) is 'Puts a task into its final status.';

-- Gives leases on tasks that are due: new ones, and those whose lease ran out. Of the latter some end here.
create function tidings.task_claim(
    given_replica text, given_lease_ms bigint, tasks_max integer, takeovers_max integer, actions text[], given_owner text)
returns table (ids text[], terms bigint[], next_due_ms bigint, told tidings.told)
language plpgsql as $$
declare
    own tidings.task;
    said bigint[] := '{}';
    lost integer;
    -- Owners who have as many tasks in the hands of this replica as leave some to others.
    capped text[] := '{}';
begin
    perform set_config('synchronous_commit', 'off', true);
    ids := '{}';
    terms := '{}';
    if actions is null then
        select coalesce(array_agg(h.owner), '{}') into capped from (
            select coalesce(t.owner, '') as owner from tidings.task t
            where t.held and t.replica = given_replica and not t.external and t.due_at > clock_timestamp()
            group by 1 having count(*) >= 4 * tasks_max
        ) h;
    end if;
    for own in
        select t.* from tidings.task t
        where (not t.external or t.cancelling) = (actions is null) and t.due_at <= clock_timestamp()
          and (actions is null or t.action = any (actions)) and (given_owner is null or t.owner = given_owner)
          and coalesce(t.owner, '') <> all (capped)
        order by t.precedence, t.number limit tasks_max for update skip locked
    loop
        if actions is null and 4 * (tasks_max - cardinality(ids)) <= (
            select count(*) from tidings.task t
            where t.held and t.replica = given_replica and not t.external and t.due_at > clock_timestamp()
              and coalesce(t.owner, '') = coalesce(own.owner, '')) then
            continue;
        end if;
        lost := tidings.task_interrupt(own);
        said := said || own.number;
        update tidings.task t set failed = t.failed + lost, in_flight = '{}', takeovers = t.takeovers + own.held::integer
        where t.number = own.number returning t.* into own;
        if own.cancelling then
            perform tidings.task_end(own.number, 'cancelled', null, null, null);
        elsif own.status = 'paused' then
            update tidings.task t set held = false, due_at = null where t.number = own.number;
        elsif own.takeovers > takeovers_max then
            perform tidings.task_end(own.number, 'cancelled', null, 'interrupted', 'those who worked on it died one after the other');
        else
            update tidings.task t set status = 'running', term = t.term + 1, held = true, replica = given_replica,
                due_at = clock_timestamp() + make_interval(secs => given_lease_ms / 1000.0), lease_ms = given_lease_ms,
                started_at = coalesce(t.started_at, clock_timestamp())
            where t.number = own.number returning t.* into own;
            ids := ids || own.id;
            terms := terms || own.term;
        end if;
    end loop;
    told := tidings.task_say(said, null, null, false);
    select case when min(t.due_at) is not null then greatest(extract(epoch from min(t.due_at) - clock_timestamp()) * 1000, 0)::bigint end into next_due_ms
    from tidings.task t where (not t.external or t.cancelling) = (actions is null) and t.due_at is not null
      and (actions is null or t.action = any (actions)) and (given_owner is null or t.owner = given_owner)
      and coalesce(t.owner, '') <> all (capped);
    return next;
end $$;
comment on function tidings.task_claim(text, bigint, integer, integer, text[], text) is 'Gives leases on tasks that are due.';

-- What the holder of a lease tells: finished items, what it has in hand, and perhaps that it lets go or is done.
-- Told twice it changes nothing more: only pending items are finished, and only what changed is said.
create function tidings.task_report(
    given text, given_term bigint, names text[], outcomes text[], errors text[], flying text[], ending text, why text)
returns table (outcome text, status text, stop boolean, unknown text[], told tidings.told)
language plpgsql as $$
#variable_conflict use_variable
declare
    own tidings.task;
    before tidings.task;
    done record;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.task t where t.id = given for update;
    if not found then
        outcome := 'absent';
        return next;
        return;
    end if;
    if own.term <> given_term or not own.held then
        -- The answer to the last word may have been lost.
        outcome := case when own.term = given_term and ending is not null and not own.held then 'done' else 'fenced' end;
        status := own.status;
        stop := true;
        return next;
        return;
    end if;
    if own.external then
        select array_agg(n) into unknown from unnest(names || flying) n
        where not exists (select from tidings.task_item i where i.task = own.number and i.name = n);
        if unknown is not null then
            outcome := 'unknown';
            return next;
            return;
        end if;
        if ending is null and own.updated_at > clock_timestamp() - interval '125 ms' then
            outcome := 'early';
            return next;
            return;
        end if;
    end if;
    before := own;
    -- Nobody is to take up what is being cancelled.
    if ending = 'release' and own.cancelling then
        ending := 'finish';
    end if;
    with finished as (
        update tidings.task_item i set status = u.outcome, error = u.error, attempt = own.attempt, finished_at = clock_timestamp()
        from unnest(names, outcomes, errors) u(name, outcome, error)
        where i.task = own.number and i.name = u.name and i.status = 'pending'
        returning i.name, i.status, i.error, i.position
    ), sized as (
        select f.*, sum(octet_length(f.name) + coalesce(octet_length(f.error), 0) + 24) over (order by f.position) <= 65536 as fits from finished f
    )
    select count(*) filter (where f.status = 'succeeded')::integer as succeeded, count(*) filter (where f.status = 'failed')::integer as failed,
        array_agg(f.name order by f.position) filter (where f.status = 'succeeded' and f.fits) as succeeded_items,
        json_agg(row_to_json(o) order by f.position) filter (where f.status = 'failed' and f.fits) as failed_items,
        coalesce(bool_or(not f.fits), false) as truncated
    into done from sized f, lateral (select f.name, f.error) o;
    own.succeeded := own.succeeded + done.succeeded;
    own.failed := own.failed + done.failed;
    own.in_flight := coalesce(flying, own.in_flight);
    if ending is not null then
        own.failed := own.failed + case when ending = 'release' then tidings.task_interrupt(own) else 0 end;
        own.in_flight := '{}';
    end if;
    if done.succeeded + done.failed > 0 then
        own.takeovers := 0;
    end if;
    if ending = 'release' then
        own.held := false;
        own.due_at := case when own.status <> 'paused' then clock_timestamp() end;
        own.status := case when own.status = 'running' then 'pending' else own.status end;
    else
        own.status := case when own.status = 'pending' then 'running' else own.status end;
        -- Renewed when a third of it is gone, so that most reports leave the index alone.
        if own.due_at < clock_timestamp() + make_interval(secs => own.lease_ms / 1500.0) then
            own.due_at := clock_timestamp() + make_interval(secs => own.lease_ms / 1000.0);
        end if;
    end if;
    update tidings.task t set succeeded = own.succeeded, failed = own.failed, in_flight = own.in_flight, takeovers = own.takeovers,
        held = own.held, due_at = own.due_at, status = own.status
    where t.number = own.number;
    if ending = 'finish' then
        perform tidings.task_end(own.number, case when own.cancelling then 'cancelled' else 'failed' end,
            case when not own.cancelling then coalesce(why, 'not reported') end, null, why);
    end if;
    if done.succeeded + done.failed > 0 or own.status <> before.status or own.in_flight <> before.in_flight or ending is not null then
        told := tidings.task_say(array[own.number], done.succeeded_items, done.failed_items, done.truncated);
    end if;
    outcome := 'done';
    select t.status into status from tidings.task t where t.number = own.number;
    stop := own.status = 'paused' or own.cancelling;
    return next;
end $$;
comment on function tidings.task_report(text, bigint, text[], text[], text[], text[], text, text) is 'Books what the holder of a task''s lease tells.';

-- Items in hand are finished first, if somebody has any.
create function tidings.task_cancel(given text) returns table (outcome text, told tidings.told)
language plpgsql as $$
declare
    own tidings.task;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.task t where t.id = given for update;
    if not found then
        return;
    end if;
    outcome := case when own.finished_at is null or own.status = 'cancelled' then 'done' else 'refused' end;
    if own.finished_at is null and not own.cancelling then
        if own.held and own.due_at > clock_timestamp() then
            update tidings.task t set cancelling = true, message = 'being cancelled' where t.number = own.number;
        else
            update tidings.task t set failed = t.failed + tidings.task_interrupt(own) where t.number = own.number;
            perform tidings.task_end(own.number, 'cancelled', null, null, null);
        end if;
        told := tidings.task_say(array[own.number], null, null, false);
    end if;
    return next;
end $$;
comment on function tidings.task_cancel(text) is 'Cancels a task, or asks its holder to.';

create function tidings.task_pause(given text) returns table (outcome text, told tidings.told)
language plpgsql as $$
declare
    own tidings.task;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.task t where t.id = given for update;
    if not found then
        return;
    end if;
    outcome := case when own.finished_at is null and not own.cancelling then 'done' else 'refused' end;
    if outcome = 'done' and own.status <> 'paused' then
        update tidings.task t set status = 'paused', due_at = case when t.held then t.due_at end where t.number = own.number;
        told := tidings.task_say(array[own.number], null, null, false);
    end if;
    return next;
end $$;
comment on function tidings.task_pause(text) is 'Pauses a task; its holder finishes what it has in hand and lets go.';

create function tidings.task_resume(given text) returns table (outcome text, told tidings.told)
language plpgsql as $$
declare
    own tidings.task;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.task t where t.id = given for update;
    if not found then
        return;
    end if;
    outcome := case when own.finished_at is null then 'done' else 'refused' end;
    if own.status = 'paused' then
        update tidings.task t set status = 'pending', due_at = case when t.held then t.due_at else clock_timestamp() end where t.number = own.number;
        told := tidings.task_say(array[own.number], null, null, false);
    end if;
    return next;
end $$;
comment on function tidings.task_resume(text) is 'Lets a paused task go on, with whoever has it or claims it.';

create function tidings.task_retry(given text) returns table (outcome text, told tidings.told)
language plpgsql as $$
declare
    own tidings.task;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.task t where t.id = given for update;
    if not found then
        return;
    end if;
    if own.finished_at is null or own.failed + own.cancelled = 0 then
        outcome := 'refused';
        return next;
        return;
    end if;
    update tidings.task_item i set status = 'pending', error = null, attempt = null, finished_at = null
    where i.task = own.number and i.status in ('failed', 'cancelled');
    update tidings.task t set status = 'pending', attempt = t.attempt + 1, failed = 0, cancelled = 0, takeovers = 0, error = null, message = null,
        started_at = null, finished_at = null, due_at = clock_timestamp(), precedence = tidings.task_precedence(own.owner, own.external)
    where t.number = own.number;
    outcome := 'done';
    told := tidings.task_say(array[own.number], null, null, false);
    return next;
end $$;
comment on function tidings.task_retry(text) is 'Runs what failed or was cancelled again, as another attempt.';
