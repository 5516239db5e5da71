//! The policy of the queue, its bounds, and a model that tries to catch it losing or doubling something.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::domain::{Class, Draft, Epoch, Message, Priority, Timestamp, Topic};
use crate::metrics::Metrics;

const ROOMY: QueueSettings = QueueSettings { messages_max: 1_000, bytes_max: 1 << 20 };

fn frame(seq: u64, topic: &str, class: Class, key: &str, priority: Priority) -> Arc<Frame> {
    let mut draft = Draft::new(Topic::parse(topic).unwrap(), "1");
    draft.class = class;
    draft.key = Some(key.into());
    draft.priority = priority;
    let seq = if class == Class::Signal { None } else { Seq::new(seq) };
    let message = Message::from_draft(&draft, seq, Timestamp(0));
    Arc::new(Frame::new(&message, &Epoch::parse("e").unwrap()))
}

fn event(seq: u64) -> Arc<Frame> {
    frame(seq, "a", Class::Event, "", Priority::Normal)
}

fn hub(settings: QueueSettings) -> Hub {
    Hub::new(settings, Metrics::new().hub)
}

fn live(hub: &Hub, patterns: &[&str]) -> Arc<Queue> {
    let queue = hub.join();
    for pattern in patterns {
        hub.subscribe(&queue, &Pattern::parse(pattern).unwrap());
    }
    assert!(queue.go_live(Seq::ZERO));
    queue
}

fn take(queue: &Queue) -> (Vec<Taken>, End) {
    let mut taken = Vec::new();
    let end = queue.take(&mut taken, usize::MAX, usize::MAX);
    (taken, end)
}

fn seqs(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(|taken| taken.frame.seq.map_or(0, Seq::get)).collect()
}

#[test]
fn a_session_gets_what_any_of_its_patterns_matches_once() {
    let hub = hub(ROOMY);
    let queue = live(&hub, &["order:7", "order:*", "*"]);
    let other = live(&hub, &["order", "orders:*"]);
    let signal = frame(0, "order:7", Class::Signal, "", Priority::Normal);
    let message = frame(1, "order:7", Class::Event, "", Priority::Normal);
    hub.deliver(&[signal, message]);
    assert_eq!(seqs(&take(&queue).0), [0, 1]);
    assert!(take(&other).0.is_empty());
    hub.leave(&queue, &["order:7", "order:*", "*"].map(|p| Pattern::parse(p).unwrap()));
    hub.deliver(&[frame(2, "order:7", Class::Event, "", Priority::Normal)]);
    assert!(take(&queue).0.is_empty());
    assert_eq!(hub.sessions(), 1);
}

#[test]
fn a_frame_that_overtakes_waiting_ones_has_no_cursor() {
    let hub = hub(ROOMY);
    let queue = live(&hub, &["*"]);
    let frame = |seq, priority| frame(seq, "a", Class::Event, "", priority);
    hub.deliver(&[
        frame(1, Priority::Low),
        frame(2, Priority::Normal),
        frame(3, Priority::High),
        frame(4, Priority::Normal),
    ]);
    let (taken, end) = take(&queue);
    assert_eq!(seqs(&taken), [3, 2, 4, 1]);
    let cursors: Vec<bool> = taken.iter().map(|taken| taken.cursor).collect();
    assert_eq!(cursors, [false, false, false, true]);
    assert_eq!(end.settled, Seq::new(4));
}

#[test]
fn a_full_queue_keeps_the_newest_state_and_drops_signals_before_it_goes_behind() {
    let hub = hub(QueueSettings { messages_max: 8, bytes_max: 1 << 20 });
    let queue = live(&hub, &["*"]);
    // Eight states of two keys: two stay, so there is room again.
    for seq in 1..=9 {
        let key = if seq % 2 == 0 { "even" } else { "odd" };
        hub.deliver(&[frame(seq, "a", Class::State, key, Priority::Normal)]);
    }
    assert_eq!(seqs(&take(&queue).0), [7, 8, 9]);
    // Signals of many keys: dropped and counted.
    for number in 0..9 {
        hub.deliver(&[frame(0, "b", Class::Signal, &number.to_string(), Priority::Normal)]);
    }
    let (taken, end) = take(&queue);
    assert_eq!((taken.len(), end.gaps[0].1), (1, 8));
    // Events: what waits stays, and the session is behind.
    for seq in 10..=20 {
        hub.deliver(&[event(seq)]);
    }
    assert!(queue.is_behind());
    let (taken, end) = take(&queue);
    assert_eq!(seqs(&taken), (10..=17).collect::<Vec<_>>());
    assert_eq!(end.settled, Seq::new(17));
    assert!(!queue.go_live(Seq::new(19).unwrap()));
    assert!(queue.go_live(Seq::new(20).unwrap()));
    hub.deliver(&[event(20), event(21)]);
    assert_eq!(seqs(&take(&queue).0), [21]);
}

#[test]
fn a_queue_is_bounded_in_bytes_and_counts_gaps_of_few_topics() {
    let weight = event(1).weight_bytes();
    let hub = hub(QueueSettings { messages_max: 1_000, bytes_max: weight * 3 });
    let queue = live(&hub, &["*"]);
    for seq in 1..=10 {
        hub.deliver(&[event(seq)]);
    }
    assert_eq!(seqs(&take(&queue).0), [1, 2, 3]);
    let signal = |topic: &str| frame(0, topic, Class::Signal, "", Priority::Normal);
    for number in 0..200 {
        hub.deliver(&[signal(&format!("t{number}"))]);
    }
    let (taken, end) = take(&queue);
    assert!(end.gaps.len() <= 64);
    assert_eq!(end.gaps.iter().map(|(_, count)| count).sum::<u64>() + taken.len() as u64, 200);
}

#[test]
fn a_new_epoch_empties_the_queue_and_lower_seqs_count_again() {
    let hub = hub(ROOMY);
    let queue = live(&hub, &["*"]);
    hub.deliver(&[event(100)]);
    hub.reset(&Cursor::new(Epoch::parse("f").unwrap(), Seq::new(50).unwrap()));
    let (taken, end) = take(&queue);
    assert!(taken.is_empty() && end.reset.is_some());
    assert!(queue.go_live(Seq::new(50).unwrap()));
    hub.deliver(&[event(51)]);
    assert_eq!(seqs(&take(&queue).0), [51]);
}

#[derive(Debug, Clone)]
enum Step {
    Publish { topic: u8, class: u8, key: u8, priority: u8 },
    Take { messages: usize },
    Read { messages: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..2, 0u8..3, 0u8..3, 0u8..3).prop_map(|(topic, class, key, priority)| {
            Step::Publish { topic, class, key, priority }
        }),
        1 => (1usize..20).prop_map(|messages| Step::Take { messages }),
        1 => (1usize..20).prop_map(|messages| Step::Read { messages }),
    ]
}

proptest! {
    /// A session with a small queue and a log beside it: whatever it takes and reads, when all is
    /// read it has had every event once, and no cursor that it was given lied.
    #[test]
    fn nothing_is_lost_or_doubled_and_no_cursor_lies(steps in prop::collection::vec(step(), 1..300)) {
        let hub = hub(QueueSettings { messages_max: 8, bytes_max: 1 << 20 });
        let queue = live(&hub, &["*"]);
        let mut log: Vec<Arc<Frame>> = Vec::new();
        let mut had: BTreeSet<u64> = BTreeSet::new();
        let mut newest: HashMap<(Topic, Option<Arc<str>>), u64> = HashMap::new();
        let mut position = 0;
        let check_cursor = |seq: u64, log: &[Arc<Frame>], had: &BTreeSet<u64>| {
            log.iter().take(usize::try_from(seq).unwrap()).all(|frame| {
                frame.class != Class::Event || had.contains(&frame.seq.unwrap().get())
            })
        };
        let mut run = |step: Step, log: &mut Vec<Arc<Frame>>| {
            match step {
                Step::Publish { topic, class, key, priority } => {
                    let class = Class::ALL[usize::from(class)];
                    let made = frame(
                        log.len() as u64 + 1,
                        if topic == 0 { "a" } else { "b" },
                        class,
                        &key.to_string(),
                        Priority::ALL[usize::from(priority)],
                    );
                    if class != Class::Signal {
                        log.push(made.clone());
                    }
                    hub.deliver(&[made]);
                }
                Step::Take { messages } => {
                    let mut taken = Vec::new();
                    let end = queue.take(&mut taken, messages, usize::MAX);
                    for Taken { frame, cursor } in taken {
                        let Some(seq) = frame.seq else { continue };
                        assert!(had.insert(seq.get()), "{seq} came twice");
                        if frame.class == Class::State {
                            newest.insert((frame.topic.clone(), frame.key.clone()), seq.get());
                        }
                        assert!(!cursor || check_cursor(seq.get(), log, &had), "cursor {seq} lied");
                    }
                    if let Some(settled) = end.settled {
                        position = position.max(settled.get());
                        assert!(check_cursor(position, log, &had), "settled {position} lied");
                    }
                }
                Step::Read { messages } => {
                    // As a feed does: only when nothing waits and it is behind.
                    let mut taken = Vec::new();
                    if queue.take(&mut taken, 0, 1).behind {
                        for frame in log.iter().skip(usize::try_from(position).unwrap()).take(messages) {
                            let seq = frame.seq.unwrap().get();
                            assert!(had.insert(seq), "{seq} was read twice");
                            if frame.class == Class::State {
                                newest.insert((frame.topic.clone(), frame.key.clone()), seq);
                            }
                            position = seq;
                        }
                        if position >= log.len() as u64 {
                            assert!(queue.go_live(Seq::new(position).unwrap()));
                        }
                    }
                }
            }
        };
        for step in steps {
            run(step, &mut log);
        }
        for _ in 0..3 {
            run(Step::Take { messages: usize::MAX }, &mut log);
            run(Step::Read { messages: usize::MAX }, &mut log);
        }
        let events = log.iter().filter(|f| f.class == Class::Event).map(|f| f.seq.unwrap().get());
        for seq in events {
            prop_assert!(had.contains(&seq), "{} was lost", seq);
        }
        let mut last: HashMap<(Topic, Option<Arc<str>>), u64> = HashMap::new();
        for frame in log.iter().filter(|frame| frame.class == Class::State) {
            last.insert((frame.topic.clone(), frame.key.clone()), frame.seq.unwrap().get());
        }
        for (key, seq) in last {
            prop_assert!(newest.get(&key).is_some_and(|had| *had >= seq) || had.contains(&seq), "{:?}", key);
        }
    }
}

#[test]
fn a_session_that_joins_while_others_publish_misses_nothing() {
    let hub = hub(QueueSettings { messages_max: 16, bytes_max: 1 << 20 });
    let log: Arc<Mutex<Vec<Arc<Frame>>>> = Arc::default();
    const MESSAGES: u64 = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=MESSAGES {
                // First the log, then the hub, as the applying loop does.
                log.lock().push(event(seq));
                hub.deliver(&[event(seq)]);
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let queue = hub.join();
                hub.subscribe(&queue, &Pattern::parse("a").unwrap());
                let start = log.lock().len() as u64;
                let (mut position, mut had) = (start, Vec::new());
                while position < MESSAGES {
                    let (taken, end) = take(&queue);
                    had.extend(seqs(&taken));
                    position = position.max(end.settled.map_or(0, Seq::get));
                    if end.behind {
                        let page: Vec<u64> = log
                            .lock()
                            .iter()
                            .skip(usize::try_from(position).unwrap())
                            .map(|frame| frame.seq.unwrap().get())
                            .collect();
                        position = page.last().copied().unwrap_or(position);
                        had.extend(page);
                        queue.go_live(Seq::new(position).unwrap());
                    }
                }
                let expected: Vec<u64> = (start + 1..=MESSAGES).collect();
                let differs = had.iter().zip(&expected).position(|(had, expected)| had != expected);
                assert!(had.len() == expected.len() && differs.is_none(), "from {differs:?} on");
            });
        }
    });
}

#[test]
fn dropped_signals_are_counted_by_topic_up_to_a_bound_and_none_is_forgotten() {
    let hub = hub(QueueSettings { messages_max: 16, bytes_max: 1 << 20 });
    let queue = live(&hub, &["*"]);
    hub.deliver(&(1..=16).map(event).collect::<Vec<_>>());
    for number in 0..200 {
        let topic = format!("topic:{number}");
        hub.deliver(&[frame(0, &topic, Class::Signal, "", Priority::Normal)]);
    }
    let (_, end) = take(&queue);
    assert_eq!(end.gaps.len(), 64);
    assert_eq!(end.gaps.iter().map(|(_, dropped)| dropped).sum::<u64>(), 200);
}
