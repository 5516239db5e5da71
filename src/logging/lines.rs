//! Lines on their way to standard error.
//!
//! Whoever reads them may stop, and a pipe that nobody empties lets nobody write any more. So a thread of
//! its own writes them; what finds no room on the way there is dropped and counted, and nobody waits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may be on their way.
const LINES_MAX: usize = 4_096;

enum Job {
    Line(Vec<u8>),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

#[derive(Clone)]
pub struct Lines {
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Lines to a writer, which may take as long as it likes.
    pub fn to(writer: impl Write + Send + 'static) -> io::Result<Lines> {
        let (jobs, waiting) = sync_channel(LINES_MAX);
        let lines = Lines { jobs, dropped: Arc::default() };
        let dropped = lines.dropped.clone();
        let write = move || write_all(writer, &waiting, &dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
        Ok(lines)
    }

    /// Waits until everything is written, as long as that may take.
    pub fn flush(&self, within: Duration) {
        let (done, flushed) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(within);
        }
    }
}

fn write_all(mut writer: impl Write, waiting: &Receiver<Job>, dropped: &AtomicU64) {
    for job in waiting {
        match job {
            Job::Line(line) => drop(writer.write_all(&line)),
            Job::Flush(done) => drop(done.send(())),
        }
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                lines = dropped,
                "nobody took what is written here, so lines were dropped"
            );
        }
    }
}

impl Write for Lines {
    /// A line comes at once and whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Takes nothing as long as it is locked.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_writes_waits_for_nobody_and_what_found_room_is_written() {
        let stuck = Stuck::default();
        let lines = Lines::to(stuck.clone()).unwrap();
        let held = stuck.0.lock();
        for number in 0..LINES_MAX + 100 {
            lines.make_writer().write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        // One more may have been taken out already.
        assert!((99..=100).contains(&lines.dropped.load(Ordering::Relaxed)));
        drop(held);
        // There is room for this one as soon as the first are written.
        while lines.jobs.try_send(Job::Line(b"last\n".to_vec())).is_err() {
            std::thread::yield_now();
        }
        lines.flush(Duration::from_secs(60));
        let written = String::from_utf8(stuck.0.lock().clone()).unwrap();
        assert!(written.starts_with("0\n1\n") && written.ends_with("\nlast\n"));
        assert!(written.lines().count() > LINES_MAX);
    }
}
