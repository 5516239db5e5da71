//! A world that keeps its promises has no findings; with one thing changed the finding names it.

mod world;

use proptest::prelude::*;
use world::{BEGIN, Step, World, at, follows, met, plan, tell};

use super::{Kind, Ledger};
use crate::check::word::{Id, Met};
use crate::domain::{Class, Cursor, Epoch, Seq};

fn found(ledger: &Ledger) -> Vec<(Kind, u64)> {
    let count = |kind| (kind, ledger.findings().count(kind));
    Kind::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect()
}

fn has(ledger: &Ledger, kind: Kind) -> Result<(), TestCaseError> {
    let told = ledger.findings().examples().iter().any(|(own, _)| *own == kind);
    prop_assert!(ledger.findings().count(kind) > 0 && told, "{kind:?} not in {:?}", found(ledger));
    Ok(())
}

/// The place of the nth step of a kind.
fn place(world: &World, nth: prop::sample::Index, is: impl Fn(&Step) -> bool) -> Option<usize> {
    let places: Vec<usize> =
        world.steps.iter().enumerate().filter(|(_, step)| is(step)).map(|(at, _)| at).collect();
    (!places.is_empty()).then(|| *nth.get(&places))
}

fn is_event(id: Id) -> bool {
    plan().class(plan().topic(id)) == Class::Event
}

fn event_frame(step: &Step) -> bool {
    matches!(step, Step::Frame { id, .. } if is_event(*id))
}

/// Takes a message away from a client; what told cursors with it still tells them.
fn take_away(world: &mut World, from: usize, what: u64) {
    for step in &mut world.steps {
        if let Step::Frame { client, seq, cursor, .. } = *step
            && (client, seq) == (from, what)
        {
            let seq = if cursor { seq } else { BEGIN };
            *step = Step::Cursor { client, seq };
        }
    }
}

proptest! {
    #[test]
    fn a_world_that_keeps_its_promises_has_no_findings(seed: u64) {
        let world = World::new(seed);
        let ledger = world.told();
        prop_assert!(ledger.findings().is_empty(), "{:?}", ledger.findings());
        prop_assert_eq!(ledger.figures.logged, world.log.len() as u64);
        prop_assert_eq!(ledger.behind(Seq::new(world.end).unwrap()), 0);
        // What everybody has had is forgotten, but for batches of which nobody knows.
        let unknown = world.steps.iter().filter(|step| matches!(step, Step::Unknown { .. }));
        prop_assert!(ledger.unsettled() <= unknown.count());
    }

    #[test]
    fn an_event_that_a_client_never_had_is_lost(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let Some(at) = place(&world, nth, event_frame) else { return Ok(()) };
        let Step::Frame { client, seq, .. } = world.steps[at] else { unreachable!() };
        take_away(&mut world, client, seq);
        has(&world.told(), Kind::Lost)?;
    }

    #[test]
    fn a_frame_that_comes_twice_on_a_connection_is_doubled(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let Some(at) = place(&world, nth, |step| matches!(step, Step::Frame { .. })) else {
            return Ok(());
        };
        let frame = world.steps[at].clone();
        world.steps.insert(at + 1, frame);
        has(&world.told(), Kind::Doubled)?;
    }

    #[test]
    fn a_message_that_nobody_published_is_a_phantom(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let Some(at) = place(&world, nth, event_frame) else { return Ok(()) };
        let Step::Frame { id, .. } = &mut world.steps[at] else { unreachable!() };
        id.number += 8_000;
        has(&world.told(), Kind::Phantom)?;
    }

    #[test]
    fn a_message_that_is_not_in_the_log_is_a_phantom(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let Some(at) = place(&world, nth, event_frame) else { return Ok(()) };
        let Step::Frame { client, seq, id, .. } = world.steps[at] else { unreachable!() };
        world.steps.retain(|step| !matches!(step, Step::Row { seq: own, .. } if *own == seq));
        let ledger = world.told();
        has(&ledger, Kind::Phantom)?;
        let _ = (client, id);
    }

    #[test]
    fn an_accepted_message_that_the_log_lacks_is_lost(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let at = place(&world, nth, |step| matches!(step, Step::Accepted { .. })).unwrap();
        let Step::Accepted { seq, .. } = world.steps[at] else { unreachable!() };
        world.steps.retain(|step| {
            !matches!(step, Step::Row { seq: own, .. } | Step::Frame { seq: own, .. } if *own == seq)
        });
        has(&world.told(), Kind::Lost)?;
    }

    #[test]
    fn a_message_that_the_log_has_again_is_doubled(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let at = place(&world, nth, |step| matches!(step, Step::Row { .. })).unwrap();
        let Step::Row { id, .. } = world.steps[at] else { unreachable!() };
        let seq = world.end + 1;
        world.steps.push(Step::Row { seq, id });
        has(&world.told(), Kind::Doubled)?;
    }

    #[test]
    fn a_seq_that_is_not_the_one_told_is_found(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let at = place(&world, nth, |step| matches!(step, Step::Accepted { .. })).unwrap();
        let Step::Accepted { seq, .. } = &mut world.steps[at] else { unreachable!() };
        *seq -= 1;
        has(&world.told(), Kind::WrongSeq)?;
    }

    #[test]
    fn a_cursor_that_is_given_before_its_message_overtakes(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let first = |world: &World, at: usize| {
            let Step::Frame { client, seq, .. } = world.steps[at] else { return false };
            !world.steps[..at].iter().any(|step| {
                matches!(step, Step::Frame { client: c, seq: s, .. } if (*c, *s) == (client, seq))
            })
        };
        let Some(at) = place(&world, nth, event_frame) else { return Ok(()) };
        prop_assume!(first(&world, at));
        let Step::Frame { client, seq, .. } = world.steps[at] else { unreachable!() };
        world.steps.insert(at, Step::Cursor { client, seq });
        has(&world.told(), Kind::Overtaken)?;
    }

    #[test]
    fn a_client_whose_last_state_is_not_the_newest_is_told_of(seed: u64, client in 0..world::CLIENTS) {
        let mut world = World::new(seed);
        let newest = world.log.iter().rev().find(|(_, id)| {
            !is_event(*id) && follows(client, plan().topic(*id))
        });
        let Some((seq, _)) = newest.copied() else { return Ok(()) };
        take_away(&mut world, client, seq);
        has(&world.told(), Kind::Stale)?;
    }

    #[test]
    fn what_stood_in_the_log_and_is_gone_is_lost(seed: u64, nth: prop::sample::Index) {
        let mut world = World::new(seed);
        let gone = nth.index(world.log.len());
        world.log.remove(gone);
        let ledger = world.told();
        prop_assert_eq!(found(&ledger), [(Kind::Lost, 1)]);
        prop_assert!(ledger.findings().examples()[0].1.contains("gone from it"));
    }
}

/// One client that follows everything, and publisher 0 with all of its messages accepted and read.
fn small(messages: u64) -> Ledger {
    let mut ledger = Ledger::new(plan(), &at(BEGIN), vec![vec![true; 9]]);
    ledger.opened(0, false);
    ledger.say(0, messages);
    for number in 0..messages {
        let (id, seq) = (Id { publisher: 0, number }, BEGIN + 1 + number);
        tell(&mut ledger, &plan(), &Step::Accepted { id, seq });
        tell(&mut ledger, &plan(), &Step::Row { seq, id });
    }
    ledger
}

/// The nth message of `small`, given without a cursor.
fn frame(number: u64) -> Step {
    let (id, seq) = (Id { publisher: 0, number }, BEGIN + 1 + number);
    Step::Frame { client: 0, seq, id, cursor: false }
}

fn told(steps: &[Step], messages: u64) -> Vec<(Kind, u64)> {
    let mut ledger = small(messages);
    for step in steps {
        tell(&mut ledger, &plan(), step);
    }
    found(&ledger)
}

const TOPICS: u64 = 8;

#[test]
fn messages_of_one_topic_out_of_order_are_reordered() {
    let steps = [frame(TOPICS), frame(0)];
    assert_eq!(told(&steps, 9), [(Kind::Reordered, 1)]);
    assert_eq!(told(&[frame(1), frame(0)], 9), [], "of two topics");
}

#[test]
fn what_comes_again_after_a_resume_is_no_fault_unless_the_cursor_had_passed_it() {
    let again = [frame(0), Step::Opened { client: 0 }, frame(0)];
    assert_eq!(told(&again, 9), []);
    let passed = Step::Cursor { client: 0, seq: BEGIN + 1 };
    let behind = [frame(0), passed.clone(), Step::Opened { client: 0 }, frame(0)];
    assert_eq!(told(&behind, 9), [(Kind::Doubled, 1)]);
    let settled = [frame(0), passed, Step::ReadTo(BEGIN + 1), Step::Opened { client: 0 }, frame(0)];
    assert_eq!(told(&settled, 9), [(Kind::Doubled, 1)], "also when it was forgotten");
}

#[test]
fn a_message_that_comes_after_its_cursor_was_settled_overtook_and_is_not_lost() {
    let mut ledger = small(1);
    let seq = BEGIN + 1;
    for step in [Step::Cursor { client: 0, seq }, Step::ReadTo(seq), frame(0)] {
        tell(&mut ledger, &plan(), &step);
    }
    ledger.finish(Seq::new(seq));
    assert_eq!(found(&ledger), [(Kind::Overtaken, 1)]);
}

#[test]
fn a_client_that_is_reset_past_messages_is_told_of_and_one_that_missed_nothing_is_not() {
    let past = [Step::Reset { client: 0, epoch: "a", seq: BEGIN + 3 }, Step::ReadTo(BEGIN + 3)];
    assert_eq!(told(&past, 3), [(Kind::Skipped, 3)]);
    let back = [
        frame(0),
        frame(1),
        Step::Cursor { client: 0, seq: BEGIN + 2 },
        Step::ReadTo(BEGIN + 2),
        Step::Reset { client: 0, epoch: "a", seq: BEGIN + 1 },
        frame(1),
    ];
    assert_eq!(told(&back, 2), []);
}

#[test]
fn a_log_that_begins_anew_is_told_of_once() {
    let reset = Step::Reset { client: 0, epoch: "b", seq: 1 };
    assert_eq!(told(&[reset.clone(), reset], 3), [(Kind::SetBack, 1)]);
    let mut ledger = small(1);
    let other = Cursor::new(Epoch::parse("b").unwrap(), Seq::new(7).unwrap());
    ledger.accepted(Id { publisher: 0, number: 0 }, &other);
    assert!(ledger.is_set_back());
}

#[test]
fn a_publisher_whose_messages_the_log_has_out_of_order_is_told_of() {
    let mut ledger = Ledger::new(plan(), &at(BEGIN), Vec::new());
    ledger.say(0, 2);
    let ids = [0, 1].map(|number| Id { publisher: 0, number });
    for (id, seq) in [(ids[0], BEGIN + 2), (ids[1], BEGIN + 1)] {
        ledger.accepted(id, &at(seq));
    }
    for (id, seq) in [(ids[1], BEGIN + 1), (ids[0], BEGIN + 2)] {
        met(&plan(), id, |met| ledger.row(Seq::new(seq).unwrap(), met));
    }
    assert_eq!(found(&ledger), [(Kind::Reordered, 1)]);
}

#[test]
fn what_was_given_up_on_may_be_in_the_log_late_or_not_at_all_but_not_twice() {
    let mut ledger = Ledger::new(plan(), &at(BEGIN), Vec::new());
    ledger.say(0, 3);
    let ids = [0, 1, 2].map(|number| Id { publisher: 0, number });
    ledger.unknown(ids[0]);
    ledger.unknown(ids[1]);
    ledger.accepted(ids[2], &at(BEGIN + 1));
    let mut row = |id, seq: u64| {
        met(&plan(), id, |met| ledger.row(Seq::new(seq).unwrap(), met));
        found(&ledger)
    };
    assert_eq!(row(ids[2], BEGIN + 1), []);
    assert_eq!(row(ids[0], BEGIN + 2), []);
    assert_eq!(row(ids[0], BEGIN + 3), [(Kind::Doubled, 1)]);
    ledger.finish(None);
    assert_eq!(found(&ledger), [(Kind::Doubled, 1)], "the other one never came");
}

#[test]
fn a_message_whose_text_was_changed_is_a_phantom() {
    let mut ledger = small(1);
    let id = Id { publisher: 0, number: 0 };
    met(&plan(), id, |whole| {
        let data = whole.data.replace("at_us\":7", "at_us\": 7");
        let changed = Met { data: &data, ..*whole };
        ledger.frame(0, Some(BEGIN + 1), None, &changed, 9);
        ledger.row(Seq::new(BEGIN + 2).unwrap(), &changed);
    });
    assert_eq!(found(&ledger), [(Kind::Phantom, 2)]);
}

#[test]
fn a_message_that_has_the_seq_of_another_one_is_a_phantom() {
    let id = Id { publisher: 0, number: 1 };
    let wrong = Step::Frame { client: 0, seq: BEGIN + 1, id, cursor: true };
    assert_eq!(told(&[wrong, Step::ReadTo(BEGIN + 1)], 2), [(Kind::Phantom, 1)]);
}

#[test]
fn messages_of_other_topics_concern_nobody_but_their_cursors_do() {
    let mut ledger = small(1);
    let other = Met { topic: "broadcast", class: "event", key: None, data: "1" };
    ledger.frame(0, Some(BEGIN + 1), Some(&at(BEGIN + 1)), &other, 9);
    ledger.read_to(Seq::new(BEGIN + 1).unwrap());
    ledger.finish(None);
    assert_eq!(found(&ledger), [(Kind::Lost, 1)], "the cursor has passed what was due");
}

#[test]
fn of_a_client_without_a_connection_nothing_is_claimed_beyond_its_cursor() {
    let mut ledger = small(3);
    ledger.read_to(Seq::new(BEGIN + 3).unwrap());
    ledger.lost_connection(0);
    ledger.finish(Seq::new(BEGIN + 3));
    assert_eq!((found(&ledger), ledger.apart()), (vec![], 1));
}

#[test]
fn what_others_write_under_our_topics_does_not_upset_the_second_reading() {
    let mut ledger = small(1);
    let mut audit = ledger.audit(true);
    for (number, seq) in [(u64::MAX, BEGIN + 2), (0, BEGIN + 1)] {
        let id = Id { publisher: 0, number };
        met(&plan(), id, |met| ledger.audit_row(&mut audit, Seq::new(seq).unwrap(), met));
    }
    assert_eq!(ledger.audit_end(audit), 1);
    assert_eq!(found(&ledger), []);
}
