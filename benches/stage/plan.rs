//! What is measured, and of whom.

use std::time::Duration;

use tidings::bench::{Away, Idle, Returning, Shape, Stream, Task};

use crate::Conduct;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    WsFloor,
    PgFloor,
    /// So many replicas on one Postgres.
    Tidings(usize),
}

#[derive(Clone, Debug)]
pub struct Case {
    pub shape: Shape,
    pub contenders: Vec<Contender>,
    /// How many messages are in the log before; more than a fresh one has.
    pub log_rows: u64,
}

impl Contender {
    pub fn name(self) -> String {
        match self {
            Contender::WsFloor => "ws-floor".to_owned(),
            Contender::PgFloor => "pg-floor".to_owned(),
            Contender::Tidings(1) => "tidings".to_owned(),
            Contender::Tidings(replicas) => format!("tidings-{replicas}"),
        }
    }
}

impl Case {
    /// The shape, and how long the log was before.
    pub fn name(&self) -> String {
        match self.log_rows {
            0 => self.shape.to_string(),
            rows => format!("{}, log of {rows} rows", self.shape),
        }
    }
}

/// Sizes as the run wants them; pages look figures up by the same shapes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    seconds: f64,
    small: usize,
}

impl Plan {
    pub fn new(wanted: &Conduct) -> Plan {
        Plan { seconds: wanted.seconds, small: wanted.small.max(1) }
    }

    fn size(self, size: usize) -> usize {
        (size / self.small).max(2)
    }

    pub fn idle(self) -> Shape {
        Shape::Idle(Idle { connections: self.size(5_000), lasts: self.lasts() })
    }

    pub fn fanout(self, rate: Option<u32>) -> Shape {
        // Of few messages much waits already.
        Shape::Stream(Stream { topics: 1, publishers: 8, ..self.stream(rate) })
    }

    pub fn unicast(self, rate: Option<u32>) -> Shape {
        Shape::Stream(self.stream(rate))
    }

    pub fn batches(self) -> Shape {
        Shape::Stream(Stream { batch: 100, publishers: 16, ..self.stream(None) })
    }

    pub fn reconnect(self) -> Shape {
        let (listeners, topics, missed) = (self.size(5_000), 100, 1_000);
        Shape::Returning(Returning { listeners, topics, missed, bytes: 300 })
    }

    pub fn recovery(self) -> Shape {
        let away = Duration::from_secs_f64(3.0 / self.small as f64);
        Shape::Away(Away { listeners: 30, rate: 100, away, rounds: 2, bytes: 300 })
    }

    pub fn tasks(self) -> Shape {
        Shape::Task(Task { items: self.size(10_000), concurrency: 100 })
    }

    fn lasts(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn stream(self, rate: Option<u32>) -> Stream {
        let small = u32::try_from(self.small).unwrap_or(u32::MAX);
        let listeners = self.size(1_000);
        Stream {
            listeners,
            topics: listeners,
            rate: rate.map(|rate| (rate / small).max(5)),
            lasts: self.lasts(),
            warm_up: self.lasts().min(Duration::from_secs(1)),
            bytes: 300,
            batch: 1,
            publishers: 64,
            window: 64,
        }
    }

    /// What every run measures.
    pub fn cases(self) -> Vec<Case> {
        use Contender::{PgFloor, Tidings, WsFloor};
        let case = |shape, contenders: &[Contender]| Case {
            shape,
            contenders: contenders.to_vec(),
            log_rows: 0,
        };
        let mut cases = vec![case(self.idle(), &[WsFloor, Tidings(1)])];
        for rate in [Some(10), Some(50), Some(100), None] {
            cases.push(case(self.fanout(rate), &[WsFloor, Tidings(1)]));
        }
        for rate in [Some(500), Some(2_000), Some(5_000), None] {
            let all = [WsFloor, PgFloor, Tidings(1), Tidings(3)];
            cases.push(case(self.unicast(rate), &all));
        }
        cases.push(case(self.batches(), &[Tidings(1), Tidings(3)]));
        cases.push(case(self.reconnect(), &[Tidings(1)]));
        cases.push(case(self.recovery(), &[Tidings(3)]));
        cases.push(case(self.tasks(), &[Tidings(3)]));
        cases
    }

    pub fn grown(self, topics: usize, bytes: usize) -> Shape {
        Shape::Stream(Stream { topics, bytes, publishers: 32, ..self.stream(Some(1_000)) })
    }

    /// What is measured of growth.
    pub fn growth(self, log_rows_max: u64) -> Vec<Case> {
        use Contender::Tidings;
        let case =
            |shape, replicas| Case { shape, contenders: vec![Tidings(replicas)], log_rows: 0 };
        let mut cases = Vec::new();
        for replicas in 1..=5 {
            cases.push(case(self.unicast(Some(2_000)), replicas));
        }
        for topics in [10, 100, 1_000, 10_000, 100_000] {
            cases.push(case(self.grown(topics, 300), 1));
        }
        for bytes in [100, 1_000, 8_000, 64 << 10] {
            let Shape::Stream(stream) = self.grown(1_000, bytes) else { continue };
            let rate = if bytes > 8_000 { Some(100) } else { stream.rate };
            cases.push(case(Shape::Stream(Stream { rate, ..stream }), 1));
        }
        let mut log_rows = 100_000;
        while log_rows <= log_rows_max {
            cases.push(Case { log_rows, ..case(self.unicast(Some(2_000)), 1) });
            log_rows *= 10;
        }
        cases
    }
}
