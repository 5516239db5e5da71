-- notice_lapsed: whether notices ran out since a moment, so that counts may have changed; and what the time is now.
select (extract(epoch from clock_timestamp()) * 1000)::bigint,
    exists (select from tidings.notice n where n.expires_at > to_timestamp($1::bigint / 1000.0) and n.expires_at <= clock_timestamp())
