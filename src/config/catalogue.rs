//! The one list of settings. Flags, variables, file keys, ranges, `docs/settings.md` and
//! `check-config` are all made from it.

/// One setting: `--drain-s`, `TIDINGS_DRAIN_S` and `drain_s` in the settings file.
#[derive(Debug)]
pub struct Setting {
    /// The part that it belongs to, a heading in the docs.
    pub part: &'static str,
    /// Its key in the settings file, from which flag and variable follow.
    pub key: &'static str,
    /// `None` where nothing is set unless somebody says so.
    pub default: Option<&'static str>,
    pub kind: Kind,
    pub secrecy: Secrecy,
    pub help: &'static str,
}

/// What a setting's text may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text whose rule is in the words given; its reader checks it.
    Text(&'static str),
    OneOf(&'static [&'static str]),
    Switch,
    /// Comma-separated; an array in the settings file.
    List(&'static str),
    Whole {
        min: u64,
        max: u64,
        unit: Unit,
    },
}

/// What a whole number counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    None,
    Seconds,
    Millis,
    /// Also written `64 KiB`, `8 MiB`, `1 GiB`.
    Bytes,
}

/// How much of a setting may be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrecy {
    Open,
    /// Shown without its password; may be given as `<key>_file`.
    Password,
    /// Never shown; may be given as `<key>_file`.
    Secret,
}

impl Setting {
    /// Two settings have names that the whole Postgres world shares.
    pub fn env(&self) -> String {
        match self.key {
            "database_url" | "listen_database_url" => self.key.to_uppercase(),
            key => format!("TIDINGS_{}", key.to_uppercase()),
        }
    }

    /// Without the leading dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Whether `<key>_file` may name a file that holds the value.
    pub fn has_file(&self) -> bool {
        self.secrecy != Secrecy::Open
    }

    pub(super) const fn secret(self) -> Setting {
        Setting { secrecy: Secrecy::Secret, ..self }
    }

    const fn password(self) -> Setting {
        Setting { secrecy: Secrecy::Password, ..self }
    }

    const fn default(self, text: &'static str) -> Setting {
        Setting { default: Some(text), ..self }
    }
}

const fn setting(part: &'static str, key: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { part, key, default: None, kind, secrecy: Secrecy::Open, help }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max, unit: Unit::None }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max, unit: Unit::Seconds }
}

const fn millis(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max, unit: Unit::Millis }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Whole { min, max, unit: Unit::Bytes }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const ADDRESS: Kind = Kind::Text("an address and a port such as 127.0.0.1:8080");
const DATABASE: Kind = Kind::Text("a postgres:// URL or key=value pairs");
const FILE: Kind = Kind::Text("the path of a file");
pub(super) const ALGORITHMS: &[&str] = &["HS256", "RS256", "ES256", "EdDSA"];

/// Every setting, in the order of the docs.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    setting("replica", "replica", Kind::Text("1 to 64 of the characters A-Z a-z 0-9 _ . : / @ -"),
        "Name of this replica, different for each; unset, the name of the host."),
    setting("replica", "dev", Kind::Switch,
        "For trying out on one's own machine: needs no token, everybody is admin, and only a loopback address is listened on.")
        .default("false"),

    setting("logging", "log", Kind::Text("a tracing filter such as info or tidings=debug,info"),
        "What is logged.").default("info"),
    setting("logging", "log_format", Kind::OneOf(&["auto", "human", "json"]),
        "How it is written; auto is human on a terminal and json elsewhere.").default("auto"),

    setting("server", "listen", ADDRESS, "Where clients are served.").default("127.0.0.1:8080"),
    setting("server", "ops_listen", ADDRESS,
        "Where health and metrics are served; unset, they share the address of the clients."),
    setting("server", "allowed_origins", Kind::List("origins such as https://app.example.com, or *"),
        "Origins whose pages may open sessions; unset, only pages of the same origin."),
    setting("server", "drain_s", seconds(0, 3600),
        "How long a leaving replica waits for its clients to go before it cuts them off.").default("20"),
    setting("server", "accept_grace_s", seconds(0, 600),
        "How long of that a leaving replica still takes new connections, until load balancers have seen that it is not ready. Its clients are told to go after it.")
        .default("0"),
    setting("server", "connections_max", count(1, 10_000_000),
        "Connections held at once, above sessions_max; further ones are answered 503.").default("24000"),
    setting("server", "header_timeout_s", seconds(1, 3600),
        "How long a connection may take to send the headers of a request; also how long it may idle between two. Above the idle timeout of a load balancer that keeps connections open, which is a minute with most.")
        .default("75"),

    setting("auth", "api_keys", Kind::List("keys of at least 16 characters each"),
        "Keys of servers, which may do everything.").secret(),
    setting("auth", "jwt_secret", Kind::Text("text"),
        "The secret with which tokens are signed: 16 bytes at least, better 32.").secret(),
    setting("auth", "jwt_public_key_file", FILE, "PEM file with the public key of tokens."),
    setting("auth", "jwks_url", Kind::Text("an http:// or https:// URL without a user"),
        "Where the public keys of tokens are fetched."),
    setting("auth", "jwt_algorithm", Kind::OneOf(ALGORITHMS),
        "The one algorithm that tokens are signed with; unset, HS256 with a secret and RS256 with a public key."),
    setting("auth", "jwt_issuer", Kind::Text("text"), "If set, the `iss` that a token must have."),
    setting("auth", "jwt_audience", Kind::Text("text"), "If set, an `aud` that a token must have. Set it where the issuer serves other applications too: their tokens would count here."),

    setting("limits", "data_bytes_max", bytes(KIB, 16 * MIB),
        "The largest `data` of a message.").default("256 KiB"),
    setting("limits", "frame_bytes_max", bytes(KIB, 32 * MIB),
        "The largest frame that a client may send; at least data_bytes_max, and unless set 64 KiB more than it."),
    setting("limits", "body_bytes_max", bytes(KIB, GIB),
        "The largest body of a request.").default("8 MiB"),
    setting("limits", "body_timeout_s", seconds(1, 3600),
        "How long a client may take to send a body.").default("60"),
    setting("limits", "batch_messages_max", count(1, 10_000),
        "Messages in one publish request, and in a batch when no more is added to it.").default("1000"),
    setting("limits", "frames_per_s_max", count(1, 100_000),
        "Frames that a session may send in a second, with bursts of twice as many.").default("50"),
    setting("limits", "topics_per_session_max", count(1, 10_000),
        "Topics that a session may be subscribed to.").default("100"),
    setting("limits", "history_limit_max", count(1, 10_000),
        "Messages in one answer of the history.").default("1000"),
    setting("limits", "long_poll_s_max", seconds(0, 600),
        "How long a request for messages may wait.").default("60"),

    setting("publish", "intake_messages_max", count(1, 10_000_000),
        "Messages that wait for their batch, at least batch_messages_max; further ones are answered 429.").default("10000"),
    setting("publish", "intake_bytes_max", bytes(MIB, 64 * GIB),
        "What the waiting messages may weigh, at least body_bytes_max; and what the bodies that are being read may.").default("64 MiB"),
    setting("publish", "publish_timeout_s", seconds(1, 600),
        "How long a publisher waits for the commit before it is answered 503.").default("10"),
    setting("publish", "lanes", count(1, 8),
        "Connections on which batches are written side by side: more than one pays only where a commit takes long.").default("1"),
    setting("publish", "batch_bytes_max", bytes(64 * KIB, 64 * MIB),
        "What a batch weighs when no more is added to it; the last request in it stays whole.").default("1 MiB"),
    setting("publish", "idempotency_s", seconds(60, 31_536_000),
        "How long an idempotency key is remembered.").default("86400"),

    setting("hub", "sessions_max", count(1, 10_000_000),
        "Sessions of this replica.").default("20000"),
    setting("hub", "sessions_per_user_max", count(1, 1_000_000),
        "Sessions of one user on this replica.").default("100"),
    setting("hub", "session_queue_messages_max", count(16, 1_000_000),
        "Messages that wait for one session before it reads the log instead.").default("1024"),
    setting("hub", "session_queue_bytes_max", bytes(2 * KIB, GIB),
        "What they may weigh; at least twice data_bytes_max.").default("1 MiB"),
    setting("hub", "stall_s", seconds(1, 3600),
        "How long a client may take nothing from its socket before it is cut off; a WebSocket is closed with 4408.").default("30"),
    setting("hub", "heartbeat_s", seconds(1, 3600),
        "How often a session is sent a sign of life; a WebSocket that answers none of three is closed with 4408.").default("15"),

    setting("log", "ring_messages_max", count(16, 100_000_000),
        "Newest messages kept in memory for replay.").default("65536"),
    setting("log", "ring_bytes_max", bytes(MIB, 64 * GIB),
        "What they may weigh.").default("64 MiB"),
    setting("log", "tick_ms", millis(100, 60_000),
        "How often the head of the log is read, whether or not anything was heard.").default("1000"),
    setting("bus", "polling_tick_ms", millis(10, 60_000),
        "How often it is read where LISTEN is not possible.").default("200"),
    setting("bus", "pulse_s", seconds(1, 3600),
        "After how much silence the listener is tried by a notification to itself.").default("5"),

    setting("feed", "replay_readers_max", count(1, 1_000),
        "Replays that read the database at once; fewer than pool_connections_max.").default("6"),
    setting("feed", "page_messages_max", count(1, 10_000),
        "Messages read at once for a replay.").default("256"),
    setting("feed", "page_bytes_max", bytes(KIB, 64 * MIB),
        "What they may weigh, the first one apart.").default("128 KiB"),

    setting("tasks", "tasks_max", count(1, 10_000),
        "Tasks that this replica works on at once; further ones are left to others, or wait.").default("32"),
    setting("tasks", "task_items_at_once_max", count(1, 100_000),
        "Items of all its tasks that this replica has in hand at once; one owner alone leaves a fifth of them to others.").default("512"),
    setting("tasks", "task_concurrency_max", count(1, 1_000),
        "Items of one task that may be in hand at once.").default("200"),
    setting("tasks", "task_items_max", count(1, 100_000), "Items in one task.").default("100000"),
    setting("tasks", "task_lease_ms", millis(500, 3_600_000),
        "How long a replica that says nothing keeps a task before another one takes it over.").default("15000"),
    setting("tasks", "task_tick_ms", millis(100, 600_000),
        "How often tasks that are due are looked for when nothing was heard.").default("5000"),
    setting("tasks", "task_takeovers_max", count(0, 1_000),
        "How many leases of a task may run out one after the other, without one finished item, before it is interrupted.")
        .default("5"),
    setting("tasks", "task_retention_s", seconds(60, 3_153_600_000),
        "How long a task is kept after it has ended.").default("604800"),
    setting("tasks", "task_http_hosts", Kind::List("hosts, host:port pairs, addresses and nets"),
        "Hosts that the executor http may ask; unset, none. Addresses inside the network are reached only if they, or a net that holds them, are listed as well."),
    setting("tasks", "task_http_secrets", Kind::List("secrets of the form name@host=value or name@host:port=value"),
        "What {secret:name} stands for in the headers of requests to that host: over TLS, unless its port is written.").secret(),
    setting("tasks", "task_kubernetes", Kind::Text("in-cluster, or the path of a kubeconfig"),
        "The cluster whose nodes the executor kubernetes may change; unset, none."),
    setting("tasks", "task_kubernetes_context", Kind::Text("the name of a context"),
        "Which context of the kubeconfig; unset, its current one."),

    setting("notices", "notice_users_max", count(1, 1_000_000),
        "Users that one notice may name, and that it may leave out.").default("10000"),
    setting("notices", "notice_replays_max", count(0, 10_000),
        "Notices that a session is given when it opens, of those that its user has not received; of more it is told a gap.")
        .default("100"),
    setting("notices", "notice_replay_age_s", seconds(1, 3_153_600_000),
        "How old such a notice may be; older ones stay in the inbox.").default("604800"),
    setting("notices", "notice_grace_ms", millis(100, 86_400_000),
        "How long a notice may go unacknowledged before it is redelivered to sessions that have not had it; twice as long with each of five rounds.")
        .default("30000"),
    setting("notices", "notice_tick_ms", millis(100, 600_000),
        "How often that is looked for; and at every third time notices that ran out.").default("5000"),
    setting("notices", "notice_retention_s", seconds(60, 3_153_600_000),
        "How long a notice is kept, or until it runs out if that is later.").default("7776000"),

    setting("presence", "presence_lease_ms", millis(500, 30_000),
        "How long the sessions of a replica that died count as there.").default("20000"),
    setting("presence", "presence_topics", Kind::List("topics, or prefixes ending in *"),
        "Topics on which is told who joins and leaves; unset, none."),
    setting("telemetry", "telemetry_hosts", Kind::List("hosts, host:port pairs, addresses and nets"),
        "Where sources may be read; private addresses must be listed too. Unset, sources can only push."),
    setting("telemetry", "telemetry_key", Kind::Text("at least 16 bytes that nobody can guess"),
        "The key under which headers and queries of sources are kept, the same on every replica; unset, sources with such are refused.").secret(),
    setting("telemetry", "telemetry_sources_max", count(1, 100_000),
        "Sources that there may be; one more is answered 429.").default("10000"),
    setting("telemetry", "telemetry_instances_max", count(1, 10_000_000),
        "Instances that this replica keeps in memory; further ones of its sources are ignored and counted.").default("100000"),
    setting("telemetry", "telemetry_lease_ms", millis(500, 600_000),
        "How long a replica that says nothing keeps the sources that it reads.").default("15000"),
    setting("telemetry", "telemetry_silence_ms", millis(100, 3_600_000),
        "How long a source may say nothing, comments included, before it is connected to anew.").default("90000"),
    setting("telemetry", "telemetry_flush_ms", millis(50, 600_000),
        "How often gauges and counters are written; what seldom changes is written at once.").default("5000"),
    setting("telemetry", "telemetry_batch_events", count(1, 100_000),
        "How many raw events are written together.").default("1000"),
    setting("telemetry", "telemetry_batch_age_ms", millis(50, 3_600_000),
        "How long raw events wait to be written together.").default("60000"),
    setting("telemetry", "telemetry_buffer_events_max", count(100, 10_000_000),
        "Raw events that may wait while the database is away; then updates are thinned.").default("100000"),
    setting("telemetry", "telemetry_buffer_bytes_max", bytes(64 * KIB, 64 * GIB),
        "What these may weigh.").default("64 MiB"),

    setting("memory", "memory_messages_max", count(16, 100_000_000),
        "Messages kept where there is no database, and idempotency keys, whatever the retention; the oldest go first.")
        .default("1000000"),
    setting("memory", "memory_bytes_max", bytes(MIB, 64 * GIB),
        "What their `data` may weigh, and what was submitted with tasks as much again.").default("512 MiB"),
    setting("memory", "memory_items_max", count(1, 100_000_000),
        "Items of tasks kept where there is no database; tasks that ended go first, and when all are open a new one is refused.")
        .default("1000000"),

    setting("postgres", "database_url", DATABASE,
        "The database; unset, libpq's PG* variables, and without those one replica runs in memory.").password(),
    setting("postgres", "listen_database_url", DATABASE,
        "The same database past a transaction pooler, for LISTEN; unset, database_url.").password(),
    setting("postgres", "pool_connections_max", count(1, 1_000),
        "Connections beside those of the listener and the lanes.").default("8"),
    setting("postgres", "pool_wait_ms", millis(10, 600_000),
        "How long a request waits for a free connection before it is answered 503.").default("3000"),
    setting("postgres", "statement_timeout_ms", millis(100, 600_000),
        "How long a statement may take.").default("5000"),
    setting("postgres", "retention_s", seconds(60, 3_153_600_000),
        "How long messages are kept.").default("604800"),
    setting("postgres", "partition_rows", count(100, 1_000_000_000),
        "Messages in one partition; retention drops whole ones.").default("1000000"),
];

/// The setting of that key.
pub fn setting_of(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

impl Kind {
    /// What is allowed, as the end of a sentence that begins with "must be".
    pub fn allowed(&self) -> String {
        match *self {
            Kind::Text(rule) => rule.to_owned(),
            Kind::List(rule) => format!("a comma-separated list of {rule}"),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Switch => "true or false".to_owned(),
            Kind::Whole { min, max, unit } => match unit {
                Unit::None => format!("a whole number from {min} to {max}"),
                Unit::Seconds => format!("a whole number of seconds from {min} to {max}"),
                Unit::Millis => format!("a whole number of milliseconds from {min} to {max}"),
                Unit::Bytes => {
                    format!("a size such as 64 KiB, from {} to {}", size(min), size(max))
                }
            },
        }
    }
}

/// `8 MiB` for 8388608; what is no whole multiple stays a number.
pub(super) fn size(bytes: u64) -> String {
    for (one, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= one && bytes.is_multiple_of(one) {
            return format!("{} {name}", bytes / one);
        }
    }
    bytes.to_string()
}

/// The reverse of `size`; plain numbers are bytes.
pub(super) fn bytes_of(text: &str) -> Option<u64> {
    let units = [("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("", 1)];
    let (number, one) =
        units.iter().find_map(|(name, one)| text.strip_suffix(name).map(|rest| (rest, one)))?;
    whole_of(number.trim_end())?.checked_mul(*one)
}

/// Digits alone: no sign, no space.
pub(super) fn whole_of(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
