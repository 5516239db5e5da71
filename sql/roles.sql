-- The roles of an installation, none with more rights than it needs. Run it in the database that
-- Tidings lives in or is to live in, as a superuser or as who may create roles and owns the database;
-- then `tidings migrate` as tidings_owner. It may be run again, and over a schema that one role made.
--
--   tidings_owner      owns the schema: `tidings migrate`, and nothing else, runs under it
--   tidings_service    replicas: reads and writes rows, cannot change the schema
--   tidings_publisher  applications: may call tidings.publish, and see nothing
--   tidings_reader     people and reports: reads messages and tasks, changes nothing
--
-- The first two log in themselves, once they have a password: alter role tidings_service password '…'.
-- The others are granted: grant tidings_publisher to shop.
-- Everybody who may connect can also notify the replicas, so see docs/security.md about CONNECT.
do $$
declare
    name text;
    kind text;
begin
    foreach name in array array['tidings_owner', 'tidings_service', 'tidings_publisher', 'tidings_reader'] loop
        if to_regrole(name) is null then
            execute format('create role %I %s', name, case when name in ('tidings_owner', 'tidings_service') then 'login' else 'nologin' end);
        end if;
        execute format('grant connect on database %I to %I', current_database(), name);
    end loop;
    -- Whoever is no superuser may give to a role only as its member.
    if not (select r.rolsuper from pg_roles r where r.rolname = current_user) then
        execute format('grant tidings_owner to %I', current_user);
    end if;
    -- Needed even to be told that the schema is there.
    execute format('grant create on database %I to tidings_owner', current_database());
    create schema if not exists tidings;
    alter schema tidings owner to tidings_owner;
    -- What another role has made.
    for name in
        select c.oid::regclass::text from pg_class c
        where c.relnamespace = 'tidings'::regnamespace and c.relkind in ('r', 'p') and c.relowner <> 'tidings_owner'::regrole
    loop
        execute format('alter table %s owner to tidings_owner', name);
    end loop;
    for name in
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'tidings'::regnamespace and p.proowner <> 'tidings_owner'::regrole
    loop
        execute format('alter routine %s owner to tidings_owner', name);
    end loop;
    for name in
        select t.oid::regtype::text from pg_type t join pg_class c on c.oid = t.typrelid
        where t.typnamespace = 'tidings'::regnamespace and c.relkind = 'c' and t.typowner <> 'tidings_owner'::regrole
    loop
        execute format('alter type %s owner to tidings_owner', name);
    end loop;
end $$;
