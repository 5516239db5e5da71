-- outbox_oldest: for how long the oldest row of the outbox has waited, to see a relay that does not keep up; null: there is none.
select extract(epoch from clock_timestamp() - (select at from tidings.outbox order by id limit 1))::float8
