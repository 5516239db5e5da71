//! The typed settings, made from their texts, and the rules between several of them.

use super::*;
use crate::logging;
use values::Values;

/// Room in a frame for everything that is not `data`.
const FRAME_FIELDS_BYTES: u64 = 64 << 10;

pub(super) fn config(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    toml: Option<&str>,
) -> Result<Config, ConfigError> {
    let mut values = Values::collect(flags, env, toml);
    let v = &mut values;
    let mut warnings = Vec::new();
    let dev = v.switch("dev");
    let unset = ReplicaId::from_host(&host_name(env));
    let replica = v.parsed("replica", ReplicaId::parse).unwrap_or(unset);
    let config = Config {
        logging: logging(v),
        server: server(v, dev),
        auth: Auth::read(v, dev, &mut warnings),
        limits: limits(v),
        publish: publish(v),
        hub: hub(v),
        log: log(v),
        bus: bus(v),
        feed: feed(v),
        tasks: tasks(v),
        notices: notices(v),
        presence: presence(v),
        telemetry: telemetry(v),
        memory: memory(v),
        postgres: postgres(v, env, &replica, &mut warnings),
        replica,
        dev,
        demo: false,
        warnings,
        effective: Vec::new(),
        shown: String::new(),
    };
    if values.faults.is_empty() {
        // Only whole settings can be compared with one another.
        compare(&config, &mut values);
    }
    if !values.faults.is_empty() {
        return Err(ConfigError(values.faults));
    }
    let redact = |key: &str| match key {
        "database_url" => config.postgres.database.as_ref().map(Dsn::redacted),
        "listen_database_url" => config.postgres.listen_database.as_ref().map(Dsn::redacted),
        _ => None,
    };
    let (effective, shown) = (values.effective(redact), values.shown(redact));
    Ok(Config { effective, shown, ..config })
}

fn logging(v: &mut Values) -> Logging {
    let filter = v.parsed("log", |text| logging::is_filter(text).then(|| text.to_owned()));
    Logging {
        filter: filter.unwrap_or_default(),
        format: match v.word("log_format") {
            Some("human") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            _ => LogFormat::Auto,
        },
    }
}

fn server(v: &mut Values, dev: bool) -> Server {
    for key in ["listen", "ops_listen"] {
        let open = v.address(key).is_some_and(|address| !address.ip().is_loopback());
        if dev && open {
            v.refuse(
                key,
                "dev lets everybody in as admin, so it listens on loopback only: set 127.0.0.1 or \
                 [::1], or leave dev out and set jwt_secret or api_keys",
            );
        }
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Server {
        listen: v.address("listen").unwrap_or(any),
        ops_listen: v.address("ops_listen"),
        allowed_origins: origins(v),
        drain: v.duration("drain_s"),
        accept_grace: v.duration("accept_grace_s"),
        connections_max: v.count("connections_max"),
        header_timeout: v.duration("header_timeout_s"),
    }
}

fn origins(v: &mut Values) -> Origins {
    let list = v.list("allowed_origins");
    if list.is_empty() {
        return Origins::Same;
    }
    if list.iter().any(|origin| origin == "*") {
        return Origins::Any;
    }
    let mut listed = Vec::new();
    for origin in list {
        let uri: Option<http::Uri> = origin.parse().ok();
        let whole = uri.as_ref().is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.path() == "/"
                && uri.query().is_none()
        });
        if whole {
            // A browser sends no slash at the end, and lower case.
            listed.push(origin.trim_end_matches('/').to_ascii_lowercase());
        } else {
            v.refuse("allowed_origins", format!("{origin:?} is no https://host[:port], nor *"));
        }
    }
    Origins::Listed(listed)
}

fn limits(v: &mut Values) -> Limits {
    let data_bytes_max = v.count("data_bytes_max");
    let fields = usize::try_from(FRAME_FIELDS_BYTES).unwrap_or(usize::MAX);
    let frame_bytes_max = match v.text("frame_bytes_max") {
        Some(_) => v.count("frame_bytes_max"),
        None => data_bytes_max.saturating_add(fields),
    };
    Limits {
        data_bytes_max,
        frame_bytes_max,
        body_bytes_max: v.count("body_bytes_max"),
        batch_messages_max: v.count("batch_messages_max"),
        frames_per_s_max: u32::try_from(v.count("frames_per_s_max")).unwrap_or(u32::MAX),
        topics_per_session_max: v.count("topics_per_session_max"),
        history_limit_max: v.count("history_limit_max"),
        long_poll_max: v.duration("long_poll_s_max"),
        body_timeout: v.duration("body_timeout_s"),
    }
}

fn publish(v: &mut Values) -> Publish {
    Publish {
        intake_messages_max: v.count("intake_messages_max"),
        intake_bytes_max: v.count("intake_bytes_max"),
        timeout: v.duration("publish_timeout_s"),
        lanes: v.count("lanes"),
        batch_bytes_max: v.count("batch_bytes_max"),
        idempotency: v.duration("idempotency_s"),
    }
}

fn hub(v: &mut Values) -> Hub {
    Hub {
        sessions_max: v.count("sessions_max"),
        sessions_per_user_max: v.count("sessions_per_user_max"),
        session_queue_messages_max: v.count("session_queue_messages_max"),
        session_queue_bytes_max: v.count("session_queue_bytes_max"),
        stall: v.duration("stall_s"),
        heartbeat: v.duration("heartbeat_s"),
    }
}

fn log(v: &mut Values) -> Log {
    Log {
        ring_messages_max: v.count("ring_messages_max"),
        ring_bytes_max: v.count("ring_bytes_max"),
        tick: v.duration("tick_ms"),
    }
}

fn bus(v: &mut Values) -> Bus {
    Bus { polling_tick: v.duration("polling_tick_ms"), pulse: v.duration("pulse_s") }
}

fn feed(v: &mut Values) -> Feed {
    Feed {
        replay_readers_max: v.count("replay_readers_max"),
        page_messages_max: v.count("page_messages_max"),
        page_bytes_max: v.count("page_bytes_max"),
    }
}

fn tasks(v: &mut Values) -> Tasks {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Tasks {
        tasks_max: v.count("tasks_max"),
        items_at_once_max: v.count("task_items_at_once_max"),
        concurrency_max: number(v.count("task_concurrency_max")),
        items_max: v.count("task_items_max"),
        lease: v.duration("task_lease_ms"),
        tick: v.duration("task_tick_ms"),
        takeovers_max: number(v.count("task_takeovers_max")),
        retention: v.duration("task_retention_s"),
        http_hosts: v.list("task_http_hosts"),
        http_secrets: v.list("task_http_secrets").into_iter().map(Secret::new).collect(),
        kubernetes: v.text("task_kubernetes"),
        kubernetes_context: v.text("task_kubernetes_context"),
    }
}

fn notices(v: &mut Values) -> Notices {
    Notices {
        users_max: v.count("notice_users_max"),
        replays_max: v.count("notice_replays_max"),
        replay_age: v.duration("notice_replay_age_s"),
        grace: v.duration("notice_grace_ms"),
        tick: v.duration("notice_tick_ms"),
        retention: v.duration("notice_retention_s"),
    }
}

fn presence(v: &mut Values) -> Presence {
    let mut topics = Vec::new();
    for text in v.list("presence_topics") {
        match Pattern::parse(&text) {
            Ok(pattern) => topics.push(pattern),
            Err(error) => v.refuse("presence_topics", format!("{text:?}: {error}")),
        }
    }
    Presence { lease: v.duration("presence_lease_ms"), topics }
}

fn telemetry(v: &mut Values) -> Telemetry {
    let key = v.text("telemetry_key");
    if key.as_ref().is_some_and(|key| key.len() < 16) {
        v.refuse("telemetry_key", "at least 16 bytes that nobody can guess");
    }
    Telemetry {
        hosts: v.list("telemetry_hosts"),
        key: key.map(Secret::new),
        sources_max: v.count("telemetry_sources_max"),
        instances_max: v.count("telemetry_instances_max"),
        lease: v.duration("telemetry_lease_ms"),
        silence: v.duration("telemetry_silence_ms"),
        flush: v.duration("telemetry_flush_ms"),
        batch_events: v.count("telemetry_batch_events"),
        batch_age: v.duration("telemetry_batch_age_ms"),
        buffer_events_max: v.count("telemetry_buffer_events_max"),
        buffer_bytes_max: v.count("telemetry_buffer_bytes_max"),
    }
}

fn memory(v: &mut Values) -> Memory {
    Memory {
        messages_max: v.count("memory_messages_max"),
        bytes_max: v.count("memory_bytes_max"),
        items_max: v.count("memory_items_max"),
    }
}

fn postgres(
    v: &mut Values,
    env: &dyn Fn(&str) -> Option<String>,
    replica: &ReplicaId,
    warnings: &mut Vec<String>,
) -> Postgres {
    let mut read = |key, unset: Option<&str>| {
        let text = v.text(key).or_else(|| unset.map(str::to_owned))?;
        match Dsn::parse(&text, env) {
            Ok(dsn) => {
                let unused = dsn.ignored().iter();
                warnings.extend(unused.map(|name| format!("{key}: {name} is not used")));
                Some(dsn.named(&format!("tidings/{replica}")))
            }
            Err(error) => {
                v.refuse(key, error.to_string());
                None
            }
        }
    };
    let database = read("database_url", Dsn::in_environment(env).then_some(""));
    let listen_database = read("listen_database_url", None);
    Postgres {
        database,
        listen_database,
        pool_connections_max: v.count("pool_connections_max"),
        pool_wait: v.duration("pool_wait_ms"),
        statement_timeout: v.duration("statement_timeout_ms"),
        retention: v.duration("retention_s"),
        partition_rows: v.whole("partition_rows").unwrap_or(0),
    }
}

/// Bounds that would contradict one another: a message that is let in must fit everywhere.
fn compare(config: &Config, v: &mut Values) {
    let data = config.limits.data_bytes_max;
    for (key, bytes) in [
        ("frame_bytes_max", config.limits.frame_bytes_max),
        ("body_bytes_max", config.limits.body_bytes_max),
        ("batch_bytes_max", config.publish.batch_bytes_max),
        ("intake_bytes_max", config.publish.intake_bytes_max),
        ("ring_bytes_max", config.log.ring_bytes_max),
        ("memory_bytes_max", config.memory.bytes_max),
    ] {
        if bytes < data {
            v.refuse(key, format!("must be at least data_bytes_max, which is {data}"));
        }
    }
    if config.hub.session_queue_bytes_max / 2 < data {
        let why = format!("must be at least twice data_bytes_max, which is {data}");
        v.refuse("session_queue_bytes_max", why);
    }
    if config.publish.intake_bytes_max < config.publish.batch_bytes_max {
        v.refuse("intake_bytes_max", "must be at least batch_bytes_max");
    }
    if config.feed.replay_readers_max >= config.postgres.pool_connections_max {
        // Replays would otherwise hold every connection, and requests would wait for them.
        let most = config.postgres.pool_connections_max;
        v.refuse("replay_readers_max", format!("must be below pool_connections_max ({most})"));
    }
    if config.postgres.database.is_none() && v.text("listen_database_url").is_some() {
        v.refuse("listen_database_url", "needs database_url beside it");
    }
    // Otherwise a request that is let in would be told for ever to come again.
    let publish = &config.publish;
    if publish.intake_messages_max < config.limits.batch_messages_max {
        v.refuse("intake_messages_max", "must be at least batch_messages_max");
    }
    if publish.intake_bytes_max < config.limits.body_bytes_max {
        v.refuse("intake_bytes_max", "must be at least body_bytes_max");
    }
    if config.server.connections_max <= config.hub.sessions_max {
        // A replica that is full still has to say that it lives.
        let why = "must be above sessions_max: probes and publishers need connections too";
        v.refuse("connections_max", why);
    }
    let server = &config.server;
    if !server.accept_grace.is_zero() && server.accept_grace >= server.drain {
        v.refuse(
            "accept_grace_s",
            "must be shorter than drain_s: clients are told to go in the rest",
        );
    }
}

/// Containers name themselves in `HOSTNAME`; shells know it and do not hand it on.
fn host_name(env: &dyn Fn(&str) -> Option<String>) -> String {
    let named = env("HOSTNAME").filter(|name| !name.is_empty());
    named
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .unwrap_or_default()
}
