//! Wake-ups that are cheap to wait for, again and again.
//!
//! A session waits for a dozen things and is mostly woken by one of them. Asked all anew each time,
//! the others cost more than the one: a timer is looked up, a lock is taken, a read buffer is cleared
//! for a read that finds nothing. A `Gate` asks only those who have woken it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Raised by anybody, taken by one task that waits for it; raised twice it is taken once.
#[derive(Debug, Default)]
pub struct Flag {
    raised: AtomicBool,
    waiting: AtomicWaker,
}

impl Flag {
    pub fn raise(&self) {
        // Who raised it before has woken whoever waited, and nobody has taken it since.
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.waiting.wake();
        }
    }

    /// Resolves when it is raised, and takes it down. Cancel-safe.
    pub async fn taken(&self) {
        std::future::poll_fn(|cx| self.poll_taken(cx)).await;
    }

    fn poll_taken(&self, cx: &Context<'_>) -> Poll<()> {
        // First the waker: raised in between, it wakes us.
        self.waiting.register(cx.waker());
        match self.raised.swap(false, Ordering::AcqRel) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// Stands before something that is polled, and lets through only if that has woken it, or was ready
/// the last time.
#[derive(Debug)]
pub struct Gate {
    flag: Arc<Flag>,
    waker: Waker,
}

/// Open, so that what stands behind it is asked once.
impl Default for Gate {
    fn default() -> Gate {
        let flag = Arc::new(Flag::default());
        flag.raise();
        Gate { waker: flag.clone().into(), flag }
    }
}

impl Gate {
    /// Something behind it was changed by others: it is asked again.
    pub fn open(&self) {
        self.flag.raise();
    }

    pub fn poll<T>(
        &self,
        cx: &Context<'_>,
        inner: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.flag.poll_taken(cx).is_pending() {
            return Poll::Pending;
        }
        let polled = inner(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // What was ready may be so again, and has no waker of ours.
            self.flag.raise();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use futures_util::task::noop_waker;

    use super::*;

    #[test]
    fn a_flag_is_taken_once_however_often_it_was_raised() {
        let (flag, waker) = (Flag::default(), noop_waker());
        let cx = Context::from_waker(&waker);
        assert!(flag.poll_taken(&cx).is_pending());
        flag.raise();
        flag.raise();
        assert!(flag.poll_taken(&cx).is_ready());
        assert!(flag.poll_taken(&cx).is_pending());
    }

    #[test]
    fn what_stands_behind_a_gate_is_asked_when_it_woke_it_and_not_before() {
        let (gate, notify) = (Gate::default(), tokio::sync::Notify::new());
        let outer = Arc::new(Flag::default());
        let waker = Waker::from(outer.clone());
        let cx = Context::from_waker(&waker);
        let mut asked = 0;
        let mut notified = pin!(notify.notified());
        let mut poll = |asked: &mut i32| {
            gate.poll(&cx, |cx| {
                *asked += 1;
                notified.as_mut().poll(cx)
            })
        };
        assert!(poll(&mut asked).is_pending());
        assert!(poll(&mut asked).is_pending());
        assert_eq!(asked, 1, "nobody has woken it since");
        outer.raised.store(false, Ordering::Relaxed);
        notify.notify_one();
        assert!(outer.raised.load(Ordering::Relaxed), "who waits for the gate is woken");
        assert!(poll(&mut asked).is_ready());
        assert_eq!(asked, 2);
    }

    #[test]
    fn what_was_ready_is_asked_again() {
        let (gate, waker) = (Gate::default(), noop_waker());
        let cx = Context::from_waker(&waker);
        assert!(gate.poll(&cx, |_| Poll::Ready(())).is_ready());
        assert!(gate.poll(&cx, |_| Poll::Ready(())).is_ready());
        assert!(gate.poll(&cx, |_| Poll::<()>::Pending).is_pending());
        assert!(gate.poll(&cx, |_| Poll::Ready(())).is_pending());
        gate.open();
        assert!(gate.poll(&cx, |_| Poll::Ready(())).is_ready());
    }

    /// However the two meet: what was raised is taken.
    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ROUNDS: usize = 20_000;
        let there = [Arc::new(Flag::default()), Arc::new(Flag::default())];
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let play = |own: Arc<Flag>, other: Arc<Flag>| async move {
            for _ in 0..ROUNDS {
                own.taken().await;
                other.raise();
            }
        };
        let [a, b] = there.clone();
        let mut set = tokio::task::JoinSet::new();
        set.spawn_on(play(a.clone(), b.clone()), runtime.handle());
        set.spawn_on(play(b, a), runtime.handle());
        there[0].raise();
        runtime.block_on(async { while set.join_next().await.is_some() {} });
    }
}
