//! The hot paths by themselves: what a message costs before any system call.
//!
//! `make bench-hot` measures, with criterion; `-- --test` only runs each once.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidings::domain::{Draft, Epoch, Message, Pattern, Seq, Timestamp, Topic};
use tidings::frame::Frame;
use tidings::hub::{Hub, Queue, QueueSettings};
use tidings::metrics::Metrics;
use tidings::notification;

const SETTINGS: QueueSettings = QueueSettings { messages_max: 1_000, bytes_max: 4 << 20 };

fn draft(topic: &str) -> Draft {
    let data = format!("{{\"us\":1234567,\"pad\":\"{}\"}}", "x".repeat(270));
    Draft::new(Topic::parse(topic).expect("a topic"), data)
}

fn epoch() -> Epoch {
    Epoch::parse("k3f9a1").expect("an epoch")
}

fn message(number: u64) -> Message {
    Message::from_draft(&draft("bench:0"), Seq::new(number), Timestamp(1_795_168_800_000))
}

fn frame(number: u64) -> Arc<Frame> {
    Arc::new(Frame::new(&message(number), &epoch()))
}

fn encoding(c: &mut Criterion) {
    let (message, epoch) = (message(1_042), epoch());
    c.bench_function("frame/encode", |b| b.iter(|| Frame::new(black_box(&message), &epoch)));
    let frame = frame(1_042);
    c.bench_function("frame/text", |b| b.iter(|| black_box(&frame).text()));
}

/// Sessions that follow one topic, live.
fn crowd(count: usize) -> (Hub, Vec<Arc<Queue>>) {
    let hub = Hub::new(SETTINGS, Metrics::new().hub);
    let pattern = Pattern::parse("bench:0").expect("a pattern");
    let queues: Vec<Arc<Queue>> = (0..count).map(|_| hub.join()).collect();
    for queue in &queues {
        hub.subscribe(queue, &pattern);
        queue.go_live(Seq::ZERO);
    }
    (hub, queues)
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("hub");
    for count in [1_usize, 1_000] {
        let (hub, queues) = crowd(count);
        let (mut number, mut taken) = (0, Vec::new());
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("deliver-and-take/{count}"), |b| {
            b.iter(|| {
                number += 1;
                hub.deliver(&[frame(number)]);
                for queue in &queues {
                    queue.take(&mut taken, 64, 1 << 20);
                    taken.clear();
                }
            });
        });
    }
    group.finish();
}

fn queue(c: &mut Criterion) {
    let (hub, queues) = crowd(1);
    let (mut number, mut taken) = (0, Vec::new());
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(64));
    group.bench_function("take-64", |b| {
        b.iter(|| {
            let frames: Vec<Arc<Frame>> = (0..64).map(|n| frame(number + n + 1)).collect();
            number += 64;
            hub.deliver(&frames);
            queues[0].take(&mut taken, 64, 1 << 20);
            taken.clear();
        });
    });
    group.finish();
}

fn notifications(c: &mut Criterion) {
    let drafts: Vec<Draft> = (0..20).map(|n| draft(&format!("bench:{n}"))).collect();
    let mut group = c.benchmark_group("notification");
    group.throughput(Throughput::Elements(20));
    group.bench_function("parts", |b| b.iter(|| notification::parts(black_box(&drafts))));
    let first = Seq::new(1).expect("a seq");
    let texts = notification::announcements(&epoch(), first, Timestamp(0), &drafts);
    group.bench_function("parse", |b| {
        b.iter(|| texts.iter().map(|text| notification::parse(text)).filter(Result::is_ok).count());
    });
    group.finish();
}

criterion_group!(hot, encoding, fan_out, queue, notifications);
criterion_main!(hot);
