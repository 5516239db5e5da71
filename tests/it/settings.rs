//! Every setting has the effect that its help text promises, and every bound leads where the protocol says.
//!
//! Through the real binary. Where the effect is a difference, the test starts a second replica
//! with another value and shows that there it is not so.

mod auth;
mod bounds;
mod bus;
pub mod client;
mod feed;
mod hub;
mod limits;
mod log;
mod logging;
mod memory;
mod notices;
mod postgres;
mod publish;
mod replica;
mod scans;
mod server;
mod tasks;
mod telemetry;

use tidings::config::SETTINGS;

use crate::fleet::{self, Replica};
use crate::harness;

/// Each setting and the tests that show its effect. They are named as functions, so that none can
/// be renamed or removed and still stand here.
macro_rules! shown {
    ($($key:literal: $($test:path),+;)*) => {
        &[$(($key, &[$($test as fn()),+])),*]
    };
}

/// A setting's key, and what shows it.
type Shown = (&'static str, &'static [fn()]);

const SHOWN: &[Shown] = shown! {
    "replica": replica::a_replica_says_its_name;
    "dev": replica::only_in_dev_mode_nobody_needs_a_token,
        replica::dev_mode_listens_on_loopback_only;
    "log": logging::what_is_not_asked_for_is_not_logged;
    "log_format": logging::lines_are_for_people_or_for_machines;
    "listen": server::clients_are_served_where_it_says;
    "ops_listen": server::health_and_metrics_listen_apart;
    "allowed_origins": server::pages_of_other_origins_are_let_in_when_named;
    "drain_s": server::a_drain_ends_in_time;
    "accept_grace_s": server::a_leaving_replica_takes_connections_for_its_grace_only;
    "connections_max": server::a_connection_too_many_is_answered_503;
    "header_timeout_s": server::a_connection_that_sends_no_headers_is_closed,
        server::a_connection_that_idles_between_two_requests_is_closed;
    "api_keys": auth::who_has_an_api_key_is_let_in;
    "jwt_secret": auth::a_token_signed_with_the_secret_is_let_in;
    "jwt_public_key_file": auth::a_token_is_checked_with_the_key_in_the_file;
    "jwks_url": auth::keys_are_fetched_from_their_address;
    "jwt_algorithm": auth::the_algorithm_is_pinned;
    "jwt_issuer": auth::a_token_of_another_issuer_is_refused;
    "jwt_audience": auth::a_token_for_another_audience_is_refused;
    "data_bytes_max": limits::larger_data_is_answered_413;
    "frame_bytes_max": limits::a_larger_frame_closes_with_4413;
    "body_bytes_max": limits::a_larger_body_is_answered_413;
    "body_timeout_s": limits::a_body_that_does_not_come_is_answered_408;
    "batch_messages_max": limits::more_messages_in_a_request_are_answered_413;
    "frames_per_s_max": limits::frames_that_come_too_fast_close_with_4429;
    "topics_per_session_max": limits::more_topics_are_refused_everywhere;
    "history_limit_max": limits::a_page_of_history_is_no_longer_than_that;
    "long_poll_s_max": limits::a_wait_is_no_longer_than_that;
    "intake_messages_max": publish::messages_that_find_no_room_are_answered_429;
    "intake_bytes_max": publish::bytes_that_find_no_room_are_answered_429;
    "publish_timeout_s": publish::who_has_waited_for_long_enough_is_answered_503;
    "lanes": publish::each_lane_writes_on_a_connection_of_its_own;
    "batch_bytes_max": publish::what_waits_is_split_into_batches;
    "idempotency_s": publish::a_key_is_forgotten_when_its_time_is_over;
    "sessions_max": hub::a_session_too_many_is_refused;
    "sessions_per_user_max": hub::a_session_too_many_of_one_user_is_refused;
    "session_queue_messages_max": hub::a_session_that_falls_behind_reads_the_log;
    "session_queue_bytes_max": hub::a_session_that_falls_behind_reads_the_log;
    "stall_s": hub::a_websocket_that_takes_nothing_is_closed_with_4408,
        hub::an_event_stream_that_is_not_taken_is_cut_off;
    "heartbeat_s": hub::sessions_get_signs_of_life,
        hub::a_websocket_that_gives_no_sign_of_life_is_closed_with_4408;
    "ring_messages_max": log::what_the_ring_forgot_is_read_from_the_store;
    "ring_bytes_max": log::what_the_ring_forgot_is_read_from_the_store;
    "tick_ms": log::what_was_not_announced_is_found_by_the_tick;
    "polling_tick_ms": bus::without_listen_the_head_is_polled;
    "pulse_s": bus::a_quiet_listener_is_tried_by_a_pulse;
    "replay_readers_max": feed::so_many_replays_read_the_database_at_once;
    "page_messages_max": feed::a_replay_is_read_in_pages;
    "page_bytes_max": feed::a_replay_is_read_in_pages;
    "tasks_max": tasks::so_many_tasks_are_worked_on_at_once;
    "task_items_at_once_max": tasks::so_many_items_are_in_hand_at_once;
    "task_concurrency_max": tasks::more_concurrency_is_answered_422;
    "task_items_max": tasks::more_items_are_answered_413;
    "task_lease_ms": tasks::a_lease_lasts_so_long;
    "task_tick_ms": tasks::what_was_not_announced_is_found_by_the_tick;
    "task_takeovers_max": tasks::so_many_leases_may_run_out;
    "task_retention_s": tasks::tasks_that_ended_too_long_ago_are_gone;
    "task_http_hosts": tasks::hosts_that_are_not_listed_are_not_asked,
        crate::tasks::http::nobody_reaches_inside_the_network;
    "task_http_secrets": crate::tasks::http::an_item_is_a_request_with_its_name_data_and_secrets;
    "task_kubernetes": crate::tasks::kubernetes::nodes_are_cordoned_labelled_and_tainted_though_others_change_them_too,
        crate::tasks::kubernetes::a_context_says_as_whom;
    "task_kubernetes_context": crate::tasks::kubernetes::a_context_says_as_whom;
    "notice_users_max": notices::more_named_users_are_answered_413;
    "notice_replays_max": notices::so_many_missed_notices_come_with_a_session;
    "notice_replay_age_s": notices::older_notices_stay_in_the_inbox;
    "notice_grace_ms": notices::what_nobody_acknowledged_is_redelivered_after_so_long;
    "notice_tick_ms": notices::what_is_due_is_found_by_the_tick;
    "notice_retention_s": notices::notices_that_are_too_old_are_gone;
    "presence_lease_ms": notices::a_dead_replicas_sessions_count_for_so_long;
    "presence_topics": notices::joining_is_told_on_topics_that_are_named;
    "telemetry_hosts": telemetry::sources_are_read_at_hosts_that_are_listed;
    "telemetry_key": telemetry::without_a_key_no_secret_is_taken;
    "telemetry_sources_max": telemetry::so_many_sources_there_may_be;
    "telemetry_instances_max": telemetry::so_many_instances_are_kept;
    "telemetry_lease_ms": crate::telemetry::reading::a_source_is_read_by_one_replica_and_by_another_when_that_one_dies;
    "telemetry_silence_ms": telemetry::a_source_that_is_silent_is_connected_to_anew;
    "telemetry_flush_ms": telemetry::gauges_and_counters_are_written_so_often;
    "telemetry_batch_events": telemetry::so_many_raw_events_are_written_together;
    "telemetry_batch_age_ms": telemetry::raw_events_wait_no_longer_than_that;
    "telemetry_buffer_events_max": telemetry::what_does_not_fit_into_the_buffer_is_thinned;
    "telemetry_buffer_bytes_max": telemetry::what_does_not_fit_into_the_buffer_is_thinned;
    "memory_messages_max": memory::what_memory_does_not_keep_is_gone;
    "memory_bytes_max": memory::what_memory_does_not_keep_is_gone, memory::tasks_weigh_so_much_at_most;
    "memory_items_max": memory::of_tasks_those_that_ended_go_first_and_then_none_is_taken;
    "database_url": postgres::the_log_is_in_the_database_that_is_named;
    "listen_database_url": postgres::the_listener_goes_where_it_is_told;
    "pool_connections_max": postgres::the_pool_holds_so_many_connections;
    "pool_wait_ms": postgres::who_finds_no_connection_in_time_is_answered_503;
    "statement_timeout_ms": postgres::a_statement_that_takes_too_long_is_given_up;
    "retention_s": postgres::messages_that_are_too_old_are_gone;
    "partition_rows": postgres::messages_are_kept_in_partitions_of_so_many;
};

#[test]
fn every_setting_has_a_test_that_shows_its_effect() {
    let wanted: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    let shown: Vec<&str> = SHOWN.iter().map(|(key, _)| *key).collect();
    assert_eq!(shown, wanted, "the table in tests/it/settings.rs lists the catalogue in its order");
}

/// Settings by their keys, as the variables that a process is given.
fn variables<'a>(settings: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
    let variable = |key: &str| {
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        setting.unwrap_or_else(|| panic!("there is no setting {key}")).env()
    };
    settings.iter().map(|(key, value)| (variable(key), *value)).collect()
}

fn borrowed<'a>(variables: &'a [(String, &'a str)]) -> Vec<(&'a str, &'a str)> {
    variables.iter().map(|(name, value)| (name.as_str(), *value)).collect()
}

/// A replica in memory with these settings, by their keys.
async fn in_memory(settings: &[(&str, &str)]) -> Replica {
    Replica::in_memory("settings", &borrowed(&variables(settings))).await
}

/// A replica over Postgres with these settings, by their keys.
async fn in_postgres(name: &str, database_url: &str, settings: &[(&str, &str)]) -> Replica {
    Replica::start(name, database_url, &borrowed(&variables(settings))).await
}

async fn until_live(replica: &Replica) {
    fleet::until_live(std::slice::from_ref(replica)).await;
}

/// The exit code of a replica that cannot start with these settings, and what it says.
async fn refused(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    Replica::refused(&borrowed(&variables(settings))).await
}

/// One number from the database.
async fn number(database: &tokio_postgres::Client, sql: &str) -> i64 {
    database.query_one(sql, &[]).await.unwrap().get(0)
}

/// A lock that a test holds, on a connection of its own: within its transaction nobody would see
/// how `pg_stat_activity` changes.
struct Lock(tokio_postgres::Client);

impl Lock {
    /// `wanted` is what follows `lock table`.
    async fn take(database_url: &str, wanted: &str) -> Lock {
        let client = harness::connect(database_url).await;
        client.batch_execute(&format!("begin; lock table {wanted}")).await.unwrap();
        Lock(client)
    }

    async fn release(self) {
        self.0.batch_execute("commit").await.unwrap();
    }
}

/// A fresh database and a connection to it, for looks behind the scenes.
async fn database() -> (String, tokio_postgres::Client) {
    let url = harness::database_url().await;
    let client = harness::connect(&url).await;
    (url, client)
}
