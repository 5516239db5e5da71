-- notice_recall: takes a notice back, and tells those who have it.
select fresh, epoch, at_ms, first_seq, topics, priority from tidings.notice_recall($1)
