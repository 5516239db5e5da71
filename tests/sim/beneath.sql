-- Faults beneath the writer: its own statements, each with a point at which the simulation can hold, refuse or kill it.
-- What is set here is read by whoever comes to a point; `held` lasts until the writer gives the statement up.
create schema beneath;
create table beneath.fault (point text primary key, what text not null);
create function beneath.reach(at text) returns void language plpgsql as $$
declare
    fault text := (select f.what from beneath.fault f where f.point = at);
begin
    case fault
        when 'held' then perform pg_sleep(60);
        when 'refused' then raise exception 'beneath: %', at using errcode = 'XX000';
        when 'killed' then perform pg_terminate_backend(pg_backend_pid());
        else null;
    end case;
end $$;

alter function tidings.append(integer, bigint, bigint, text[], text[], text[], smallint[], text[], smallint[], integer[], text[], text[]) rename to append_really;
create function tidings.append(
    lane integer, lane_fence bigint, number bigint,
    topics text[], datas text[], kinds text[], classes smallint[], keys text[], priorities smallint[], ttls integer[], idempotency_keys text[], traces text[])
returns table (epoch text, at_ms bigint, first_seq bigint, fresh integer, seqs bigint[], duplicates boolean[])
language plpgsql as $$
begin
    return query select * from tidings.append_really(lane, lane_fence, number, topics, datas, kinds, classes, keys, priorities, ttls, idempotency_keys, traces);
    perform beneath.reach('append');
end $$;

alter function tidings.announce(integer, bigint, bigint, integer[], text[]) rename to announce_really;
create function tidings.announce(lane integer, lane_fence bigint, number bigint, counts integer[], bodies text[]) returns void
language plpgsql as $$
begin
    perform beneath.reach('announce');
    perform tidings.announce_really(lane, lane_fence, number, counts, bodies);
end $$;

-- Found before the built-in one, for the search_path names pg_catalog last.
create function beneath.pg_logical_emit_message(transactional boolean, prefix text, content text) returns pg_lsn
language plpgsql as $$
begin
    perform beneath.reach('barrier');
    return pg_catalog.pg_logical_emit_message(transactional, prefix, content);
end $$;

-- A standby that is behind: `replicate` brings it up to date, `fail_over` makes it the primary.
create schema standby;
create table standby.log as select * from tidings.log;
create table standby.message as select * from tidings.message;
create table standby.writer as select * from tidings.writer;
create function standby.replicate() returns void language sql as $$
    truncate standby.log, standby.message, standby.writer;
    insert into standby.log select * from tidings.log;
    insert into standby.message select * from tidings.message;
    insert into standby.writer select * from tidings.writer;
$$;
create function standby.fail_over() returns void language plpgsql as $$
begin
    perform pg_terminate_backend(a.pid) from pg_stat_activity a where a.datname = current_database() and a.pid <> pg_backend_pid();
    lock table tidings.log, tidings.writer, tidings.message in access exclusive mode;
    delete from tidings.message;
    insert into tidings.message select * from standby.message;
    delete from tidings.writer;
    insert into tidings.writer overriding system value select * from standby.writer;
    update tidings.log l set head = s.head, epoch = s.epoch from standby.log s;
end $$;
