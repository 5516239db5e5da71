-- presence_pairs: which of these users are on which of these topics.
select user_id, topic from tidings.presence_pairs($1, $2)
