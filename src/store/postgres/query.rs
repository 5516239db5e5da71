//! Every statement: its name, its text and the types of its parameters.
//!
//! The name is the file's, the span's and the metric label's too. A test prepares each of them
//! against the real schema, and fails on a file that nobody lists.

use tokio_postgres::types::{ToSql, Type};

/// A statement of `sql/query`.
#[derive(Debug)]
pub struct Query {
    pub name: &'static str,
    pub text: &'static str,
    pub types: &'static [Type],
}

pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

macro_rules! queries {
    ($($constant:ident = $name:literal [$($type:ident),*];)*) => {
        $(pub static $constant: Query = Query {
            name: $name,
            text: include_str!(concat!("../../../sql/query/", $name, ".sql")),
            types: &[$(Type::$type),*],
        };)*

        /// All of them, for the test that prepares each.
        pub static ALL: &[&Query] = &[$(&$constant),*];
    };
}

queries! {
    LOG_HEAD = "log_head" [];
    LOG_BARRIER = "log_barrier" [];
    LOG_APPEND = "log_append" [INT4, INT8, INT8, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT2_ARRAY, TEXT_ARRAY, INT2_ARRAY, INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY];
    LOG_ANNOUNCE = "log_announce" [INT4, INT8, INT8, INT4_ARRAY, TEXT_ARRAY];
    LOG_SETTINGS = "log_settings" [INT8, INT4, INT4];
    SESSION_BEGIN = "session_begin" [];
    EPOCH_RENEW = "epoch_renew" [TEXT];
    WRITER_CLAIM = "writer_claim" [TEXT, INT4];
    WRITER_RECOVER = "writer_recover" [INT4, TEXT];
    WRITER_LOOK = "writer_look" [INT4];
    WRITER_RENEW = "writer_renew" [INT4, INT8];
    WRITER_RELEASE = "writer_release" [INT4, INT8];
    MESSAGE_RANGE = "message_range" [INT8, INT8, INT8, INT8];
    MESSAGE_TOPICS = "message_topics" [INT8, INT8, INT8, INT8, TEXT_ARRAY];
    MESSAGE_PREFIXES = "message_prefixes" [INT8, INT8, INT8, INT8, TEXT_ARRAY, TEXT_ARRAY];
    MESSAGE_MARK = "message_mark" [INT8];
    MESSAGE_SINCE = "message_since" [INT8];
    SIGNAL_NOTIFY = "signal_notify" [TEXT_ARRAY];
    OUTBOX_RELAY = "outbox_relay" [INT4, INT8];
    OUTBOX_ANNOUNCE = "outbox_announce" [TEXT];
    OUTBOX_OLDEST = "outbox_oldest" [];
    PARTITION_AHEAD = "partition_ahead" [];
    PARTITION_EXPIRE = "partition_expire" [INT4];
    PARTITION_DROP = "partition_drop" [INT8];
    TASK_SUBMIT = "task_submit" [TEXT, TEXT, TEXT, TEXT, BOOL, INT4, INT4, INT4, BOOL, TEXT, TEXT, TEXT_ARRAY, TEXT_ARRAY, BOOL];
    TASK_GET = "task_get" [TEXT];
    TASK_LIST = "task_list" [TEXT, TEXT, TEXT, TEXT, INT8];
    TASK_ITEMS = "task_items" [TEXT, TEXT, TEXT, INT8];
    TASK_SNAPSHOT = "task_snapshot" [TEXT];
    TASK_CLAIM = "task_claim" [TEXT, INT8, INT4, INT4, TEXT_ARRAY, TEXT];
    TASK_REPORT = "task_report" [TEXT, INT8, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT, TEXT];
    TASK_CANCEL = "task_cancel" [TEXT];
    TASK_PAUSE = "task_pause" [TEXT];
    TASK_RESUME = "task_resume" [TEXT];
    TASK_RETRY = "task_retry" [TEXT];
    TASK_ANNOUNCE = "task_announce" [TEXT_ARRAY];
    TASK_EXPIRE = "task_expire" [FLOAT8, INT8];
    NOTICE_SEND = "notice_send" [TEXT, TEXT, TEXT, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT, TEXT, TEXT, TEXT, BOOL, INT4, TEXT, TEXT_ARRAY];
    NOTICE_GET = "notice_get" [TEXT];
    NOTICE_LIST = "notice_list" [TEXT, INT8];
    NOTICE_TALLY = "notice_tally" [TEXT];
    NOTICE_RECIPIENTS = "notice_recipients" [TEXT, TEXT, TEXT, INT8];
    NOTICE_RESEND = "notice_resend" [TEXT];
    NOTICE_RECALL = "notice_recall" [TEXT];
    NOTICE_EXPIRE = "notice_expire" [FLOAT8, INT8];
    NOTICE_LAPSED = "notice_lapsed" [INT8];
    INBOX_OPEN = "inbox_open" [TEXT_ARRAY, TEXT_ARRAY, INT4, INT4];
    INBOX_MARK = "inbox_mark" [TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT2_ARRAY];
    INBOX_FILL = "inbox_fill" [TEXT_ARRAY, TEXT_ARRAY];
    INBOX_LIST = "inbox_list" [TEXT, BOOL, TEXT, INT8];
    INBOX_DUE = "inbox_due" [TEXT, TEXT_ARRAY, INT8, INT4, INT4];
    PRESENCE_RENEW = "presence_renew" [TEXT, TEXT, TEXT, INT8];
    PRESENCE_WRITE = "presence_write" [TEXT, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY];
    PRESENCE_REAP = "presence_reap" [TEXT];
    PRESENCE_PAIRS = "presence_pairs" [TEXT_ARRAY, TEXT_ARRAY];
    PRESENCE_USERS = "presence_users" [TEXT, TEXT, INT8];
    PRESENCE_REPLICAS = "presence_replicas" [];
    SOURCE_CREATE = "source_create" [TEXT, TEXT, TEXT, TEXT, TEXT_ARRAY, BOOL, INT8];
    SOURCE_GET = "source_get" [TEXT, TEXT, INT8];
    SOURCE_CHANGE = "source_change" [TEXT, INT8, TEXT, TEXT, TEXT, TEXT_ARRAY, BOOL];
    SOURCE_DELETE = "source_delete" [TEXT];
    SOURCE_CLAIM = "source_claim" [TEXT, INT8, INT4, BOOL, BOOL];
    SOURCE_RELEASE = "source_release" [TEXT];
    SOURCE_FLUSH = "source_flush" [TEXT];
    SOURCE_INSTANCES = "source_instances" [TEXT];
    SOURCE_INGEST = "source_ingest" [TEXT, TEXT, INT8, INT8];
    SOURCE_INBOX = "source_inbox" [TEXT_ARRAY, INT8_ARRAY, INT8, INT8];
    SOURCE_TREND = "source_trend" [TEXT, TEXT, TEXT, INT2, INT8_ARRAY, INT8_ARRAY];
    SOURCE_DASHBOARD = "source_dashboard" [TEXT_ARRAY];
    SOURCE_LOGS = "source_logs" [TEXT, TEXT, INT8, INT8];
    SOURCE_SWEEP = "source_sweep" [INT4];
    IDEMPOTENCY_EXPIRE = "idempotency_expire" [INT8];
}
