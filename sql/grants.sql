-- What each role of `roles.sql` may do. Run by `tidings migrate` after every migration; it does
-- nothing where the schema belongs to another role than tidings_owner.
do $$
declare
    made text;
begin
    if not exists (
        select from pg_namespace n where n.nspname = 'tidings' and n.nspowner = to_regrole('tidings_owner') and pg_has_role(n.nspowner, 'usage')) then
        return;
    end if;
    -- Functions are everybody's unless somebody says otherwise.
    revoke execute on all functions in schema tidings from public;
    grant usage on schema tidings to tidings_service, tidings_publisher, tidings_reader;

    grant select, insert, update, delete on all tables in schema tidings to tidings_service;
    revoke insert, update, delete on tidings.migration from tidings_service;
    grant usage on all sequences in schema tidings to tidings_service;
    grant execute on all functions in schema tidings to tidings_service;
    -- Partitions come and go while replicas run. Only what does that has the rights of the owner.
    foreach made in array array['partition_make(bigint)', 'partition_drop(bigint)'] loop
        execute format('alter function tidings.%s security definer set search_path = pg_catalog, pg_temp', made);
    end loop;

    grant execute on function tidings.publish(text, json, text, text, text, text, integer, text) to tidings_publisher;

    -- Not what holds secrets or keys of clients.
    grant select on tidings.log, tidings.message, tidings.partition, tidings.task, tidings.task_item, tidings.instance, tidings.rollup, tidings.migration to tidings_reader;
end $$;
