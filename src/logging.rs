//! What is written while the replica runs: one line an event, for people or for machines.
//!
//! Everything goes to standard error, by way of a thread that may be held up without anybody else; standard output belongs to what a command answers.

mod lines;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::lines::Lines;
use crate::clock::Clock;
use crate::config::{LogFormat, Logging};
use crate::domain::Timestamp;

/// The library of WebSockets would write whole frames down at `trace`, the token of `hello` among them.
const WITHOUT_FRAMES: &str = "tungstenite=info";

/// Logging was begun already, or its filter is none.
#[derive(Debug, thiserror::Error)]
#[error("logging cannot begin: {0}")]
pub struct LoggingError(String);

/// How long a process that ends waits until its last lines are written.
const FLUSH: Duration = Duration::from_secs(1);

/// What is on its way to standard error.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The last event that somebody should look at, for the page of statistics.
static LAST_ERROR: Mutex<Option<LastError>> = Mutex::new(None);

/// An event of level `error`: its text says what happened, its fields are left to the log.
#[derive(Debug, Clone)]
pub struct LastError {
    pub at: Timestamp,
    pub what: String,
}

pub fn last_error() -> Option<LastError> {
    LAST_ERROR.lock().clone()
}

/// Keeps the last error beside what is written.
struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        *LAST_ERROR.lock() = Some(LastError { at: Clock::system().now(), what: text.0 });
    }
}

/// The text of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Begins to log, once for the process.
pub fn start(logging: &Logging) -> Result<(), LoggingError> {
    let terminal = std::io::stderr().is_terminal();
    let lines = Lines::to(std::io::stderr()).map_err(|error| LoggingError(error.to_string()))?;
    let subscriber = subscriber(logging, terminal, lines.clone())?;
    let _ = LINES.set(lines);
    subscriber.try_init().map_err(|error| LoggingError(error.to_string()))
}

/// The last thing that a process does.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(FLUSH);
    }
}

/// Whether the text is a filter.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::builder().parse(text).is_ok()
}

fn subscriber<W>(
    logging: &Logging,
    terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&logging.filter)
        .map_err(|error| LoggingError(error.to_string()))?;
    let filter = filter.add_directive(WITHOUT_FRAMES.parse().expect("it is a directive"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let human = match logging.format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    Ok(if human {
        Box::new(lines.with_ansi(terminal).finish().with(Keep))
    } else {
        // Fields beside the message rather than below it, so that they are queried by their name.
        Box::new(lines.json().flatten_event(true).with_span_list(false).finish().with(Keep))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(filter: &str, format: LogFormat, terminal: bool) -> String {
        let written = Written::default();
        let sink = written.clone();
        let logging = Logging { filter: filter.to_owned(), format };
        let subscriber = subscriber(&logging, terminal, move || sink.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(sessions = 3, "the replica leaves");
            tracing::debug!("not asked for");
        });
        let bytes = written.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn machines_get_one_json_object_a_line_with_fields_by_name() {
        let text = written("info", LogFormat::Auto, false);
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "the replica leaves");
        assert_eq!(line["sessions"], 3);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn people_get_a_line_with_colours_only_on_a_terminal() {
        let plain = written("info", LogFormat::Human, false);
        assert!(plain.contains("the replica leaves sessions=3"), "{plain}");
        assert!(!plain.contains('\u{1b}'));
        assert!(written("info", LogFormat::Auto, true).contains('\u{1b}'));
    }

    #[test]
    fn a_filter_is_known_before_it_is_used() {
        assert!(is_filter("info"));
        assert!(is_filter("tidings=debug,hyper=warn"));
        assert!(!is_filter("tidings=loud"));
        assert_eq!(written("warn", LogFormat::Json, false), "");
    }

    #[test]
    fn the_last_error_is_kept_without_its_fields() {
        let logging = Logging { filter: "info".to_owned(), format: LogFormat::Json };
        let subscriber = subscriber(&logging, false, std::io::sink).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(secret = "hush", "the store refused a message");
            tracing::warn!("something less");
        });
        assert_eq!(last_error().unwrap().what, "the store refused a message");
    }
}
