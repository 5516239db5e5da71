//! Where the buckets of a trend begin and end, in the time zone of whoever asks, and which roll-ups
//! they are made of.

use jiff::tz::TimeZone;
use jiff::{ToSpan, Unit, Zoned, ZonedRound};

use crate::domain::Timestamp;
use crate::domain::telemetry::rollup::{Level, MINUTE_MS};

/// How many points one answer has at most.
pub const POINTS_MAX: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Minute,
    Hour,
    Day,
}

impl Step {
    pub fn parse(text: &str) -> Option<Step> {
        match text {
            "1m" => Some(Step::Minute),
            "1h" => Some(Step::Hour),
            "1d" => Some(Step::Day),
            _ => None,
        }
    }
}

/// The buckets from one moment to another: the first holds `from`, the last ends at or after `to`.
///
/// A day may have 23 or 25 hours. `None` if there would be too many, or time ends before.
pub fn buckets(
    from: Timestamp,
    to: Timestamp,
    step: Step,
    zone: &TimeZone,
) -> Option<Vec<(Timestamp, Timestamp)>> {
    let zoned =
        |at: Timestamp| Some(jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(zone.clone()));
    let mut at = zoned(from)?;
    at = match step {
        Step::Day => at.start_of_day().ok()?,
        Step::Hour => {
            at.round(ZonedRound::new().smallest(Unit::Hour).mode(jiff::RoundMode::Floor)).ok()?
        }
        Step::Minute => zoned(Level::Minute.bucket(from))?,
    };
    let mut buckets = Vec::new();
    while at.timestamp().as_millisecond() < to.0 {
        let next = match step {
            Step::Day => at.checked_add(1.day()).ok()?.start_of_day().ok()?,
            Step::Hour => at.checked_add(1.hour()).ok()?,
            Step::Minute => at.checked_add(1.minute()).ok()?,
        };
        if buckets.len() >= POINTS_MAX {
            return None;
        }
        let moment = |at: &Zoned| Timestamp(at.timestamp().as_millisecond());
        buckets.push((moment(&at), moment(&next)));
        at = next;
    }
    Some(buckets)
}

/// The coarsest roll-ups that the buckets are made of without a rest and that are still kept.
pub fn level(buckets: &[(Timestamp, Timestamp)], now: Timestamp) -> Level {
    let Some((first, _)) = buckets.first() else { return Level::Minute };
    let kept = |level: &Level| first.0 >= now.0 - level.kept_ms();
    let fits = |level: &Level| {
        let length = level.length_ms();
        buckets.iter().all(|(at, next)| at.0 % length == 0 && next.0 % length == 0)
    };
    // What is no longer kept as finely is told as finely as it is.
    let from_coarse = Level::ALL.into_iter().rev();
    let best = from_coarse.filter(fits).find(kept);
    best.or_else(|| Level::ALL.into_iter().find(kept)).unwrap_or(Level::Day)
}

/// How far back a trend reaches unless it is said: sixty minutes, two days, thirty days.
pub fn default_span_ms(step: Step) -> i64 {
    match step {
        Step::Minute => 60 * MINUTE_MS,
        Step::Hour => 2 * Level::Day.length_ms(),
        Step::Day => 30 * Level::Day.length_ms(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn hours(zone: &str, from: &str, to: &str, step: Step) -> Vec<i64> {
        let zone = TimeZone::get(zone).unwrap();
        let found = buckets(at(from), at(to), step, &zone).unwrap();
        found.iter().map(|(first, next)| (next.0 - first.0) / 3_600_000).collect()
    }

    #[test]
    fn days_are_as_long_as_they_are_where_one_lives() {
        let spring =
            hours("Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z", Step::Day);
        assert_eq!(spring, [24, 23, 24]);
        let autumn =
            hours("Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z", Step::Day);
        assert_eq!(autumn, [24, 25, 24]);
        // Where there is no midnight on that day, it begins at one.
        let missing =
            hours("America/Sao_Paulo", "2018-11-04T00:00:00Z", "2018-11-05T01:00:00Z", Step::Day);
        assert_eq!(missing, [24, 23]);
        let utc = hours("UTC", "2026-10-24T05:00:00Z", "2026-10-26T00:00:00Z", Step::Day);
        assert_eq!(utc, [24, 24]);
        let through =
            hours("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", Step::Hour);
        assert_eq!(through, [1; 25]);
    }

    #[test]
    fn the_coarsest_rollups_that_fit_are_read() {
        let now = at("2026-11-21T12:00:00Z");
        for (zone, from, step, expected) in [
            ("UTC", "2026-11-20T00:00:00Z", Step::Day, Level::Day),
            ("Europe/Berlin", "2026-11-18T00:00:00Z", Step::Day, Level::Hour),
            ("Asia/Kolkata", "2026-11-18T00:00:00Z", Step::Day, Level::Minute),
            ("Asia/Kolkata", "2026-11-01T00:00:00Z", Step::Day, Level::Hour),
            ("Europe/Berlin", "2026-02-01T00:00:00Z", Step::Day, Level::Day),
            ("Asia/Kolkata", "2026-11-20T00:00:00Z", Step::Hour, Level::Minute),
            ("UTC", "2026-11-21T11:00:00Z", Step::Minute, Level::Minute),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            let from = at(from);
            let to = if step == Step::Minute { now } else { Timestamp(from.0 + 86_400_000) };
            let found = buckets(from, to, step, &zone).unwrap();
            let chosen = level(&found, now);
            let whole_hour = from.0 == at("2026-11-21T11:00:00Z").0;
            assert!(chosen == expected || whole_hour, "{zone:?} {from:?}: {chosen:?}");
        }
        let zone = TimeZone::UTC;
        assert!(buckets(at("2020-01-01T00:00:00Z"), now, Step::Minute, &zone).is_none());
    }
}
