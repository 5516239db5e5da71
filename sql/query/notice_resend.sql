-- notice_resend: whoever has not received it is due at once.
select outcome, due from tidings.notice_resend($1)
