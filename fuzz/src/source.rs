//! Streams of sources: cut anywhere they say the same, and what is understood is understood again.
//!
//! The first byte says where they are cut; the rest is a stream, and is also taken for one event as it stands.

use serde_json::Value;
use tidings::domain::telemetry::{GAUGE_MAX, INSTANCE_BYTES_MAX, METRIC_BYTES_MAX, METRICS_MAX};
use tidings::domain::{Event, Timestamp};
use tidings::telemetry::format::{Format, document};
use tidings::telemetry::{Decoder, Place, Told};

const EVENT_BYTES_MAX: usize = 1_000;

/// What a master of NodePass keeps its key under.
const KEY_HOLDER: &str = "********";

pub fn check(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len());
    assert_eq!(read(stream, usize::from(*cut) % 16 + 1), whole, "where it is cut says nothing");
    for told in &whole.0 {
        let Told::Event(text) = told else { continue };
        assert!(text.len() <= EVENT_BYTES_MAX, "{} bytes", text.len());
        is_understood(text);
    }
    if let Ok(text) = std::str::from_utf8(stream) {
        is_understood(text);
    }
}

fn read(stream: &[u8], step: usize) -> (Vec<Told>, Place) {
    let mut decoder = Decoder::new(EVENT_BYTES_MAX, Place::default());
    let told = stream.chunks(step.max(1)).flat_map(|chunk| decoder.read(chunk)).collect();
    let lines = stream.iter().filter(|byte| b"\r\n".contains(byte)).count();
    assert!(decoder.lines() <= lines as u64);
    // Bytes that are no letters become three each.
    assert!(decoder.open_bytes() <= 3 * stream.len());
    (told, decoder.place)
}

fn is_understood(text: &str) {
    for format in [Format::Generic, Format::NodePass] {
        let event = match format.decode(text) {
            Ok(event) => event,
            Err(reason) => {
                assert!(reason.len() <= 200, "{reason}");
                continue;
            }
        };
        let name = event.instance.as_deref();
        assert!(name.is_none_or(|name| (1..=INSTANCE_BYTES_MAX).contains(&name.len())));
        assert!(format == Format::Generic || name != Some(KEY_HOLDER), "the key is nobody's");
        let names = event.facts.keys().chain(event.gauges.keys()).chain(event.counters.keys());
        assert!(names.clone().all(|name| (1..=METRIC_BYTES_MAX).contains(&name.len())));
        assert!(names.count() <= 3 * METRICS_MAX);
        assert!(event.gauges.values().all(|value| value.abs() <= GAUGE_MAX));
        let at = event.at.unwrap_or(Timestamp(0));
        let kept = document(&event, at);
        let value = serde_json::from_str(&kept).expect("what is kept is JSON");
        assert!(!has_nul(&value), "no database takes it: {kept}");
        let again = Format::Generic.decode(&kept).unwrap_or_else(|why| panic!("{why}: {kept}"));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= a.abs() * 1e-12;
        assert!(event.gauges.values().zip(again.gauges.values()).all(near), "{kept}");
        // The last digit of a gauge is the reader's.
        let expected = Event { at: Some(at), gauges: again.gauges.clone(), ..event };
        assert_eq!(again, expected, "{kept}");
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(all) => all.iter().any(has_nul),
        Value::Object(all) => all.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}
