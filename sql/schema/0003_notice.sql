-- Notices, inboxes and presence.
-- A notice to everybody or to roles is one row and one message a topic; rows of inboxes come into being when a user is
-- shown it, counted, or acts on it. A notice to named users has a row for each from the beginning.
-- Receipts only grow. What is counted is counted from the rows, under the lock of the reader, so that no count drifts.
-- Locks are taken in one order: readers by name, inboxes, the log. The log's lock comes last and is held briefly.

create table tidings.notice (
    number bigint generated always as identity primary key,
    id text collate "C" not null unique,
    idempotency_key text collate "C" unique,
    target text not null check (target in ('all', 'roles', 'users')),
    roles text[],
    except_users text[] not null default '{}',
    title text not null,
    content text not null,
    data text not null,
    priority text not null check (priority in ('urgent', 'high', 'normal', 'low')),
    confirm boolean not null,
    sender text collate "C",
    recipients integer,
    sending integer not null default 1,
    seq bigint not null default 0,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    recalled_at timestamptz
);
create index notice_wide on tidings.notice (number) where target <> 'users' and recalled_at is null;
create index notice_expires on tidings.notice (expires_at) where expires_at is not null;
create index notice_created on tidings.notice (created_at);
comment on table tidings.notice is 'What people are told, one row each, however many they are.';
comment on column tidings.notice.number is 'The order of sending.';
comment on column tidings.notice.id is 'Its name for clients.';
comment on column tidings.notice.idempotency_key is 'With the scope of who sent it before it.';
comment on column tidings.notice.target is 'Everybody, those with a role, or named users.';
comment on column tidings.notice.roles is 'For roles: which, in the order of their messages.';
comment on column tidings.notice.except_users is 'Who is left out, though the target holds them; named users are left out before.';
comment on column tidings.notice.title is 'For people.';
comment on column tidings.notice.content is 'For people.';
comment on column tidings.notice.data is 'JSON, byte for byte as it was sent.';
comment on column tidings.notice.priority is 'How much it matters.';
comment on column tidings.notice.confirm is 'Whether recipients are asked to confirm.';
comment on column tidings.notice.sender is 'The user who sent it; null for a server.';
comment on column tidings.notice.recipients is 'How many were named; null where they are found as they come.';
comment on column tidings.notice.sending is 'How often it was sent: 1, and one more with each time it was sent again.';
comment on column tidings.notice.seq is 'The seq of its first message; those to named users follow one after the other.';
comment on column tidings.notice.created_at is 'When it was sent.';
comment on column tidings.notice.expires_at is 'From here on it is shown to nobody who has not received it.';
comment on column tidings.notice.recalled_at is 'From here on it is shown to nobody.';

create table tidings.inbox (
    user_id text collate "C" not null,
    notice bigint not null,
    place integer not null,
    confirm boolean not null,
    state smallint not null default 0 check (state between 0 and 4),
    sent_at timestamptz,
    received_at timestamptz,
    read_at timestamptz,
    confirmed_at timestamptz,
    tried_at timestamptz not null default clock_timestamp(),
    tries smallint not null default 0,
    carriers text[] not null default '{}',
    given_up boolean not null default false,
    primary key (user_id, notice)
) with (fillfactor = 80);
create index inbox_notice on tidings.inbox (notice, user_id);
create index inbox_open on tidings.inbox (user_id, notice) where state < 3 or (confirm and state < 4);
create index inbox_due on tidings.inbox (user_id, notice) where state < 2 and not given_up;
comment on table tidings.inbox is 'How far each notice has come with each recipient. No foreign key: checking it would double the cost of naming 10,000.';
comment on column tidings.inbox.user_id is 'The recipient.';
comment on column tidings.inbox.notice is 'The number of the notice.';
comment on column tidings.inbox.place is 'Which of the notice''s messages is the recipient''s, from 0.';
comment on column tidings.inbox.confirm is 'As in notice.';
comment on column tidings.inbox.state is '0 pending, 1 sent, 2 received, 3 read, 4 confirmed; it only grows.';
comment on column tidings.inbox.sent_at is 'When it was first written to a socket.';
comment on column tidings.inbox.received_at is 'When a client first said that it has it.';
comment on column tidings.inbox.read_at is 'When it was first said to be read.';
comment on column tidings.inbox.confirmed_at is 'When it was confirmed.';
comment on column tidings.inbox.tried_at is 'When the last round of delivery began.';
comment on column tidings.inbox.tries is 'How many rounds of redelivery there were.';
comment on column tidings.inbox.carriers is 'The replicas that have redelivered it in this round.';
comment on column tidings.inbox.given_up is 'It is redelivered no more: all rounds are over, or it was more than a session is shown.';

create table tidings.reader (
    user_id text collate "C" primary key
);
comment on table tidings.reader is 'One row per user with an inbox: its lock is the order of what is counted and said of that inbox.';
comment on column tidings.reader.user_id is 'The user.';

create unlogged table tidings.replica (
    id text collate "C" primary key,
    name text not null,
    version text not null,
    started_at timestamptz not null default clock_timestamp(),
    until timestamptz not null
) with (fillfactor = 20, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);
comment on table tidings.replica is 'The replicas that run. Not logged: after a crash each tells of itself anew.';
comment on column tidings.replica.id is 'Its name and a word: two processes may bear one name.';
comment on column tidings.replica.name is 'Its name.';
comment on column tidings.replica.version is 'Its version.';
comment on column tidings.replica.started_at is 'When it first told of itself.';
comment on column tidings.replica.until is 'The end of its lease: from here on it and its sessions count as gone.';

create unlogged table tidings.presence (
    session text collate "C" primary key,
    replica text collate "C" not null,
    user_id text collate "C" not null,
    topics text[] collate "C" not null,
    since timestamptz not null
) with (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);
create index presence_user on tidings.presence (user_id);
create index presence_replica on tidings.presence (replica);
comment on table tidings.presence is 'The sessions of users, one row each, under the lease of their replica.';
comment on column tidings.presence.session is 'The session''s id.';
comment on column tidings.presence.replica is 'Whose it is: a replica''s id.';
comment on column tidings.presence.user_id is 'Whose client it is.';
comment on column tidings.presence.topics is 'What it is subscribed to.';
comment on column tidings.presence.since is 'When it was opened.';

-- The data of a message about a notice; `store/notice.rs` writes the same in memory.
create function tidings.notice_data(n tidings.notice) returns text
language sql stable as $$
    select row_to_json(d)::text from (select
        n.id, n.title, n.content, n.data::json as data, n.priority, n.confirm, tidings.time_text(n.expires_at) as expires_at) d
$$;
comment on function tidings.notice_data(tidings.notice) is 'What a message says of a notice.';

create function tidings.notice_priority(priority text) returns smallint
language sql immutable as $$
    select case priority when 'normal' then 1 when 'low' then 2 else 0 end::smallint
$$;
comment on function tidings.notice_priority(text) is 'The priority of its messages: urgent and high leave together.';

-- The topic of the message by which a recipient is reached.
create function tidings.notice_topic(n tidings.notice, i tidings.inbox) returns text
language sql stable as $$
    select case n.target when 'all' then 'broadcast' when 'roles' then 'role:' || n.roles[i.place + 1] else 'user:' || i.user_id end
$$;
comment on function tidings.notice_topic(tidings.notice, tidings.inbox) is 'Where a recipient finds a notice in the log.';

create function tidings.notice_live(n tidings.notice) returns boolean
language sql stable as $$
    select n.recalled_at is null and (n.expires_at is null or n.expires_at > clock_timestamp())
$$;
comment on function tidings.notice_live(tidings.notice) is 'Whether it is still to be shown.';

-- A notice, its named recipients, and its messages. `given_topics` are theirs: broadcast, one a role, or one a user.
create function tidings.notice_send(
    given_id text, given_key text, given_target text, given_roles text[], given_users text[], given_except text[],
    given_title text, given_content text, given_data text, given_priority text, is_confirm boolean, expires_s integer,
    given_sender text, given_topics text[])
returns table (id text, duplicate boolean, recipients integer, epoch text, at_ms bigint, first_seq bigint, said text)
language plpgsql as $$
#variable_conflict use_column
declare
    own tidings.notice;
    done record;
    words text;
    count integer := cardinality(given_topics);
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into tidings.notice (id, idempotency_key, target, roles, except_users, title, content, data, priority, confirm, sender, recipients, expires_at)
    values (given_id, given_key, given_target, given_roles, given_except, given_title, given_content, given_data, given_priority, is_confirm,
        given_sender, cardinality(given_users), clock_timestamp() + make_interval(secs => expires_s))
    on conflict (idempotency_key) do nothing returning * into own;
    if own.number is null then
        return query select n.id, true, n.recipients, null::text, null::bigint, null::bigint, null::text
            from tidings.notice n where n.idempotency_key = given_key;
        return;
    end if;
    insert into tidings.inbox (user_id, notice, place, confirm)
    select u.name, own.number, u.place - 1, is_confirm from unnest(given_users) with ordinality u(name, place);
    words := tidings.notice_data(own);
    select * into done from tidings.log_append(
        given_topics, array_fill(words, array[count]), array_fill('notice'::text, array[count]), array_fill(0::smallint, array[count]),
        array_fill(own.id, array[count]), array_fill(tidings.notice_priority(own.priority), array[count]),
        array_fill(expires_s, array[count]), null);
    update tidings.notice n set seq = done.first_seq, created_at = done.at where n.number = own.number;
    return query select own.id, false, own.recipients, done.epoch, (extract(epoch from done.at) * 1000)::bigint, done.first_seq, words;
end $$;
comment on function tidings.notice_send(text, text, text, text[], text[], text[], text, text, text, text, boolean, integer, text, text[]) is 'Stores a notice with its recipients and appends its messages, once per idempotency key.';

-- Whoever counts, or says what was counted, holds these.
create function tidings.inbox_lock(users text[]) returns void
language plpgsql as $$
begin
    insert into tidings.reader (user_id) select distinct u.name collate "C" as name from unnest(users) u(name) order by name
    on conflict do nothing;
    perform from tidings.reader r where r.user_id = any (users) order by r.user_id for update;
end $$;
comment on function tidings.inbox_lock(text[]) is 'Takes the locks of readers, in their order.';

-- Rows for what was sent to everybody or to roles. `roles` are those of each user, separated by commas, which no role has in it.
create function tidings.inbox_fill(users text[], roles text[]) returns void
language sql as $$
    insert into tidings.inbox (user_id, notice, place, confirm, tried_at)
    select distinct on (u.name, n.number) u.name, n.number, case when n.target = 'all' then 0 else mine.place - 1 end, n.confirm, n.created_at
    from unnest(users, roles) u(name, roles)
    join tidings.notice n on n.target <> 'users' and n.recalled_at is null
    left join lateral (
        select min(r.place) as place from unnest(n.roles) with ordinality r(role, place) where r.role = any (string_to_array(u.roles, ','))
    ) mine on true
    where tidings.notice_live(n) and (n.target = 'all' or mine.place is not null) and u.name <> all (n.except_users)
      and not exists (select from tidings.inbox i where i.user_id = u.name collate "C" and i.notice = n.number)
    order by u.name, n.number, mine.place
    on conflict do nothing
$$;
comment on function tidings.inbox_fill(text[], text[]) is 'Brings rows of inboxes into being.';

create function tidings.inbox_counts(users text[]) returns table (user_id text, unread bigint, unconfirmed bigint)
language sql stable as $$
    select u.name, count(i.state) filter (where i.state < 3), count(i.state) filter (where i.confirm)
    from unnest(users) u(name)
    left join lateral (
        select o.state, o.confirm from tidings.inbox o join tidings.notice n on n.number = o.notice
        where o.user_id = u.name collate "C" and (o.state < 3 or (o.confirm and o.state < 4)) and tidings.notice_live(n)
    ) i on true
    group by u.name
$$;
comment on function tidings.inbox_counts(text[]) is 'What is unread and unconfirmed, from the rows.';

-- Users who come: what they have not received yet, the newest of it, and what is to be counted.
-- A row per user and notice; a user for whom there is nothing has one row without a notice.
create function tidings.inbox_open(users text[], roles text[], replays_max integer, age_s integer)
returns table (place integer, unread bigint, unconfirmed bigint, as_of bigint, left_out bigint,
    id text, sending integer, topic text, seq bigint, at_ms bigint, expires_ms bigint, priority smallint, said text)
language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    perform tidings.inbox_lock(users);
    perform tidings.inbox_fill(users, roles);
    return query
    with counts as materialized (
        select c.* from tidings.inbox_counts(users) c
    ), due as (
        select u.place, i as entry, n as notice, row_number() over (partition by u.place order by n.number desc) as nth,
            count(*) over (partition by u.place) as waiting
        from unnest(users) with ordinality u(name, place)
        join tidings.inbox i on i.user_id = u.name collate "C" and i.state < 2
        join tidings.notice n on n.number = i.notice
        where tidings.notice_live(n)
    ), shown as (
        select d.* from due d where d.nth <= replays_max and (d.notice).created_at > clock_timestamp() - make_interval(secs => age_s)
    ), hidden as (
        -- What a session is not shown when it opens does not come by redelivery either.
        update tidings.inbox i set given_up = true from due d
        where i.user_id = (d.entry).user_id and i.notice = (d.entry).notice and not i.given_up
          and not exists (select from shown s where s.place = d.place and (s.entry).notice = i.notice)
    )
    select u.place::integer, c.unread, c.unconfirmed, l.head,
        coalesce((select max(d.waiting) from due d where d.place = u.place), 0) - (select count(*) from shown d where d.place = u.place),
        (s.notice).id, (s.notice).sending, tidings.notice_topic(s.notice, s.entry), (s.notice).seq + (s.entry).place,
        (extract(epoch from (s.notice).created_at) * 1000)::bigint, (extract(epoch from (s.notice).expires_at) * 1000)::bigint,
        tidings.notice_priority((s.notice).priority), tidings.notice_data(s.notice)
    from tidings.log l
    cross join unnest(users) with ordinality u(name, place)
    join counts c on c.user_id = u.name
    left join shown s on s.place = u.place
    order by u.place, (s.notice).number;
end $$;
comment on function tidings.inbox_open(text[], text[], integer, integer) is 'What users who come have missed, and their counts.';

-- What was sent to or acknowledged by users, in one go. An id of null stands for all that the user has.
-- Told twice it changes nothing more; whose counts changed by what they did is said, once each, on the topic of the user.
create function tidings.inbox_mark(users text[], roles text[], ids text[], states smallint[])
returns table (user_id text, unread bigint, unconfirmed bigint, as_of bigint, is_said boolean, epoch text, at_ms bigint, first_seq bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    changed text[];
    counted record;
    done record;
begin
    perform set_config('synchronous_commit', 'off', true);
    perform tidings.inbox_lock(users);
    -- Most have their rows already; a session is told of a notice to everybody before there is one.
    perform tidings.inbox_fill(array_agg(m.name), array_agg(m.roles))
    from (
        select distinct m.name, m.roles from unnest(users, roles, ids) m(name, roles, id)
        left join tidings.notice n on n.id = m.id
        where m.id is null or (n.target <> 'users'
            and not exists (select from tidings.inbox i where i.user_id = m.name collate "C" and i.notice = n.number))
    ) m having count(*) > 0;
    with wanted as (
        select m.name, n.number, max(least(m.state, case when n.confirm then 4 else 3 end)) as state
        from unnest(users, ids, states) m(name, id, state) join tidings.notice n on n.id = m.id
        where n.recalled_at is null group by m.name, n.number
        union all
        select m.name, n.number, max(least(m.state, case when n.confirm then 4 else 3 end))
        from unnest(users, ids, states) m(name, id, state)
        join tidings.inbox i on i.user_id = m.name collate "C" and (i.state < 3 or (i.confirm and i.state < 4))
        join tidings.notice n on n.number = i.notice
        where m.id is null and tidings.notice_live(n) group by m.name, n.number
    ), most as (
        select w.name, w.number, max(w.state) as state from wanted w group by w.name, w.number
    ), grown as (
        update tidings.inbox i set state = m.state,
            sent_at = coalesce(i.sent_at, clock_timestamp()),
            received_at = case when m.state >= 2 then coalesce(i.received_at, clock_timestamp()) end,
            read_at = case when m.state >= 3 then coalesce(i.read_at, clock_timestamp()) end,
            confirmed_at = case when m.state >= 4 then clock_timestamp() end,
            tried_at = clock_timestamp()
        from most m, tidings.notice n
        where i.user_id = m.name collate "C" and i.notice = m.number and i.state < m.state
          and n.number = m.number and (i.state >= 2 or tidings.notice_live(n))
        returning i.user_id, i.state
    )
    -- Growing to read or beyond always changes a count.
    select coalesce(array_agg(distinct g.user_id) filter (where g.state >= 3), '{}') into changed from grown g;
    select array_agg(c.user_id order by c.user_id collate "C") as names, array_agg(c.unread order by c.user_id collate "C") as unreads,
        array_agg(c.unconfirmed order by c.user_id collate "C") as unconfirmeds
    into counted from (select distinct c.* from tidings.inbox_counts(array(select distinct u.name from unnest(users) u(name))) c) c;
    select null::text as epoch, null::timestamptz as at, null::bigint as first_seq into done;
    if cardinality(changed) > 0 then
        select said.topics, a.epoch, a.at, a.first_seq into done from (
            select array_agg('user:' || c.name order by c.place) as topics,
                array_agg(format('{"unread":%s,"unconfirmed":%s}', c.unread, c.unconfirmed) order by c.place) as datas
            from unnest(counted.names, counted.unreads, counted.unconfirmeds) with ordinality c(name, unread, unconfirmed, place)
            where c.name = any (changed)
        ) said, lateral tidings.log_append(
            said.topics, said.datas, array_fill('inbox.counts'::text, array[cardinality(changed)]), array_fill(1::smallint, array[cardinality(changed)]),
            array_fill('inbox'::text, array[cardinality(changed)]), array_fill(1::smallint, array[cardinality(changed)]),
            array_fill(null::integer, array[cardinality(changed)]), null) a;
    end if;
    return query
    select c.name, c.unread, c.unconfirmed, l.head, c.name = any (changed),
        done.epoch, (extract(epoch from done.at) * 1000)::bigint, done.first_seq
    from tidings.log l cross join unnest(counted.names, counted.unreads, counted.unconfirmeds) with ordinality c(name, unread, unconfirmed, place)
    order by c.place;
end $$;
comment on function tidings.inbox_mark(text[], text[], text[], smallint[]) is 'Lets receipts grow, and says the counts of those who acted.';

-- What was sent, or should have been, and nobody acknowledged: of users who have a session on this replica.
-- Each round of redelivery waits twice as long as the one before, and while it lasts every replica carries a row once;
-- after the last one a row is given up, so that who never acknowledges costs nothing.
create function tidings.inbox_due(carrier text, users text[], grace_ms bigint, tries_max integer, rows_max integer)
returns table (user_id text, id text, sending integer, topic text, seq bigint, at_ms bigint, expires_ms bigint, priority smallint, said text)
language sql as $$
    with due as (
        select i.user_id, i.notice, r.is_over, r.is_over and i.tries >= tries_max as ends
        from tidings.inbox i join tidings.notice n on n.number = i.notice
        cross join lateral (select i.tried_at + make_interval(secs => grace_ms / 1000.0 * power(2, i.tries)) <= clock_timestamp() as is_over) r
        where i.user_id = any (users) and i.state < 2 and not i.given_up and tidings.notice_live(n)
          and (r.is_over or (i.tries > 0 and carrier <> all (i.carriers)))
        order by i.notice limit rows_max
        for update of i skip locked
    ), taken as (
        update tidings.inbox i set
            given_up = d.ends,
            tries = i.tries + (d.is_over and not d.ends)::integer,
            tried_at = case when d.is_over and not d.ends then clock_timestamp() else i.tried_at end,
            carriers = case when d.ends then '{}' when d.is_over then array[carrier] else i.carriers || carrier end
        from due d where i.user_id = d.user_id and i.notice = d.notice
        returning i as entry
    )
    select (t.entry).user_id, n.id, n.sending, tidings.notice_topic(n, t.entry), n.seq + (t.entry).place,
        (extract(epoch from n.created_at) * 1000)::bigint, (extract(epoch from n.expires_at) * 1000)::bigint,
        tidings.notice_priority(n.priority), tidings.notice_data(n)
    from taken t join tidings.notice n on n.number = (t.entry).notice
    where not (t.entry).given_up
    order by n.number
$$;
comment on function tidings.inbox_due(text, text[], bigint, integer, integer) is 'Claims receipts to be redelivered by one replica.';

-- Sent again under the same id: whoever has not received it is due at once, and nobody else.
create function tidings.notice_resend(given text) returns table (outcome text, due bigint)
language plpgsql as $$
declare
    own tidings.notice;
begin
    select * into own from tidings.notice n where n.id = given for update;
    if not found then
        return;
    end if;
    if not tidings.notice_live(own) then
        outcome := 'refused';
        return next;
        return;
    end if;
    update tidings.notice n set sending = n.sending + 1 where n.number = own.number;
    update tidings.inbox i set tried_at = to_timestamp(0), tries = 0, carriers = '{}', given_up = false where i.notice = own.number and i.state < 2;
    get diagnostics due = row_count;
    outcome := 'done';
    return next;
end $$;
comment on function tidings.notice_resend(text) is 'Makes what was not received due again.';

-- Taken back: it goes from every inbox, and clients that have it are told. Its receipts stay.
create function tidings.notice_recall(given text) returns table (fresh boolean, epoch text, at_ms bigint, first_seq bigint, topics text[], priority smallint)
language plpgsql as $$
#variable_conflict use_column
declare
    own tidings.notice;
    done record;
begin
    perform set_config('synchronous_commit', 'off', true);
    select * into own from tidings.notice n where n.id = given for update;
    if not found then
        return;
    end if;
    if own.recalled_at is not null then
        fresh := false;
        return next;
        return;
    end if;
    update tidings.notice n set recalled_at = clock_timestamp() where n.number = own.number;
    topics := case own.target when 'all' then array['broadcast']
        when 'roles' then array(select 'role:' || r from unnest(own.roles) r)
        else array(select 'user:' || i.user_id from tidings.inbox i where i.notice = own.number order by i.place) end;
    priority := tidings.notice_priority(own.priority);
    if cardinality(topics) > 0 then
        select * into done from tidings.log_append(
            topics, array_fill(json_build_object('id', own.id)::text, array[cardinality(topics)]),
            array_fill('notice.recalled'::text, array[cardinality(topics)]), array_fill(0::smallint, array[cardinality(topics)]),
            array_fill(own.id, array[cardinality(topics)]), array_fill(priority, array[cardinality(topics)]),
            array_fill(null::integer, array[cardinality(topics)]), null);
        epoch := done.epoch;
        at_ms := (extract(epoch from done.at) * 1000)::bigint;
        first_seq := done.first_seq;
    end if;
    fresh := true;
    return next;
end $$;
comment on function tidings.notice_recall(text) is 'Takes a notice back.';

-- Which of these users are on which of these topics; prefixes count.
create function tidings.presence_pairs(users text[], topics text[]) returns table (user_id text, topic text)
language sql stable as $$
    select distinct w.name, w.topic from unnest(users, topics) w(name, topic)
    join tidings.presence p on p.user_id = w.name collate "C" and w.topic = any (p.topics)
    join tidings.replica r on r.id = p.replica and r.until > clock_timestamp()
$$;
comment on function tidings.presence_pairs(text[], text[]) is 'Who is there, of those who are asked for.';

-- The sessions of a replica that came, changed or went; of watched topics, who joined or left by that.
create function tidings.presence_write(
    own text, sessions text[], users text[], topic_lists text[], sinces_ms bigint[], gone text[], watched_users text[], watched_topics text[])
returns table (user_id text, topic text, joined boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    before text[];
begin
    perform set_config('synchronous_commit', 'off', true);
    before := array(select p.user_id || ' ' || p.topic from tidings.presence_pairs(watched_users, watched_topics) p);
    delete from tidings.presence p where p.session = any (gone) and p.replica = own;
    insert into tidings.presence as p (session, replica, user_id, topics, since)
    select s.session, own, s.name, string_to_array(s.topics, ' '), to_timestamp(s.since_ms / 1000.0)
    from unnest(sessions, users, topic_lists, sinces_ms) s(session, name, topics, since_ms)
    on conflict (session) do update set topics = excluded.topics;
    return query
    select distinct w.name, w.topic, p.user_id is not null
    from unnest(watched_users, watched_topics) w(name, topic)
    left join tidings.presence_pairs(watched_users, watched_topics) p on p.user_id = w.name and p.topic = w.topic
    where (p.user_id is not null) <> (w.name || ' ' || w.topic = any (before));
end $$;
comment on function tidings.presence_write(text, text[], text[], text[], bigint[], text[], text[], text[]) is 'Writes what changed of a replica''s sessions.';

-- Renews a replica's lease, and with it those of all its sessions; says how many of them are known, and whether others ran out.
create function tidings.presence_renew(own text, given_name text, given_version text, lease_ms bigint) returns table (known bigint, lapsed boolean)
language plpgsql as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    insert into tidings.replica as r (id, name, version, until)
    values (own, given_name, given_version, clock_timestamp() + make_interval(secs => lease_ms / 1000.0))
    on conflict (id) do update set until = excluded.until;
    return query select (select count(*) from tidings.presence p where p.replica = own),
        exists (select from tidings.replica r where r.until <= clock_timestamp());
end $$;
comment on function tidings.presence_renew(text, text, text, bigint) is 'Renews the lease of a replica.';

-- Removes replicas whose lease ran out, or one that leaves, with their sessions; says who was where.
create function tidings.presence_reap(leaving text) returns table (user_id text, topics text[])
language plpgsql as $$
#variable_conflict use_column
declare
    dead text[];
begin
    perform set_config('synchronous_commit', 'off', true);
    dead := array(select r.id from tidings.replica r where r.until <= clock_timestamp() or r.id = leaving order by r.id for update skip locked);
    -- After a crash of the server there may be sessions of replicas that never came back.
    return query delete from tidings.presence p
        where p.replica = any (dead) or not exists (select from tidings.replica r where r.id = p.replica)
        returning p.user_id, p.topics;
    delete from tidings.replica r where r.id = any (dead);
end $$;
comment on function tidings.presence_reap(text) is 'Removes what nobody renews.';

-- A task whose owner is to find a notice: one for each attempt that ended, in the same transaction.
alter table tidings.task add column notice boolean not null default false;
comment on column tidings.task.notice is 'Its owner finds a notice in the inbox when an attempt has ended.';

-- The same as before, and whether its owner finds a notice.
create function tidings.task_submit(
    given_id text, given_key text, given_action text, given_owner text, is_external boolean,
    given_concurrency integer, given_retries integer, given_timeout_ms integer, once boolean,
    given_executor text, given_meta text, names text[], datas text[], is_notice boolean)
returns table (id text, duplicate boolean, told tidings.told)
language plpgsql as $$
#variable_conflict use_column
begin
    return query select * from tidings.task_submit(given_id, given_key, given_action, given_owner, is_external, given_concurrency,
        given_retries, given_timeout_ms, once, given_executor, given_meta, names, datas);
    -- Of a duplicate the id is another.
    update tidings.task t set notice = true where is_notice and t.id = given_id;
end $$;
comment on function tidings.task_submit(text, text, text, text, boolean, integer, integer, integer, boolean, text, text, text[], text[], boolean) is 'Stores a task with its items, once per idempotency key.';

-- The notice about an attempt that ended, for the owner alone; `store/notice.rs` writes the same in memory.
create function tidings.task_notice(t tidings.task) returns tidings.notice
language plpgsql as $$
declare
    own tidings.notice;
begin
    insert into tidings.notice (id, target, title, content, data, priority, confirm, recipients)
    select 'task-' || t.id || '-' || t.attempt, 'users', t.action || ': ' || t.status,
        format('%s of %s succeeded, %s failed, %s cancelled', t.succeeded, t.total, t.failed, t.cancelled),
        row_to_json(d)::text, 'normal', false, 1
    from (select t.id as task, t.action, t.status, t.attempt, t.total, t.succeeded, t.failed, t.cancelled) d
    on conflict (id) do nothing returning * into own;
    insert into tidings.inbox (user_id, notice, place, confirm) select t.owner, own.number, 0, false where own.number is not null;
    return own;
end $$;
comment on function tidings.task_notice(tidings.task) is 'Stores the notice about an attempt that ended.';

-- Appends what is to be said of tasks: on the topic of each, and on that of its owner.
-- The caller holds the rows of the tasks. Of one that is finished it is the last word of this attempt, and a notice if one is wished:
-- of what is told, a place that is neither final nor not is a notice, and its id the notice's.
create or replace function tidings.task_say(given bigint[], succeeded_items text[], failed_items json, truncated boolean) returns tidings.told
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
    own tidings.notice;
    notices tidings.notice[] := '{}';
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
            if one.notice and one.owner is not null then
                own := tidings.task_notice(one);
                notices := notices || case when own.number is not null then array[own] end;
            end if;
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
    foreach own in array notices loop
        told.topics := told.topics || (select 'user:' || i.user_id from tidings.inbox i where i.notice = own.number);
        told.datas := told.datas || tidings.notice_data(own);
        told.finals := array_append(told.finals, null);
        told.ids := told.ids || own.id;
    end loop;
    -- Both kinds about a task leave a session's queue at one priority: a last word that overtook a state would be followed by an older one.
    select * into done from tidings.log_append(
        told.topics, told.datas,
        (select array_agg(case when f is null then 'notice' when f then 'task.finished' else 'task.progress' end order by n) from unnest(told.finals) with ordinality u(f, n)),
        (select array_agg(case when f is false then 1 else 0 end::smallint order by n) from unnest(told.finals) with ordinality u(f, n)),
        told.ids,
        (select array_agg(case when f is null then 1 else 0 end::smallint order by n) from unnest(told.finals) with ordinality u(f, n)),
        array_fill(null::integer, array[cardinality(told.topics)]),
        null);
    update tidings.notice n set seq = done.first_seq + s.place - 1, created_at = done.at
    from unnest(told.ids, told.finals) with ordinality s(id, is_final, place) where s.is_final is null and n.id = s.id;
    told.epoch := done.epoch;
    told.at_ms := (extract(epoch from done.at) * 1000)::bigint;
    told.first_seq := done.first_seq;
    return told;
end $$;
