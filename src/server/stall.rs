//! Notices that a client takes nothing from its socket.
//!
//! A write that waits means that the buffers of both kernels are full. Waiting is no fault, a slow
//! client waits all the time; but one that takes not a byte for too long holds its memory for
//! nothing. Whoever serves the connection decides what follows: the stream goes on as it was, so
//! that a last word can still be said.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// A stream whose writes are watched.
pub(super) struct Watched<S> {
    stream: S,
    stall: Duration,
    /// Runs while a write waits; made when the first one does, which most connections never see.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Cancelled once, when a write has waited for too long.
    stalled: CancellationToken,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, stall: Duration, stalled: CancellationToken) -> Watched<S> {
        Watched { stream, stall, waiting: None, stalled }
    }

    fn note<T>(&mut self, cx: &mut Context<'_>, written: &Poll<io::Result<T>>) {
        if written.is_ready() {
            self.waiting = None;
            return;
        }
        let stall = self.stall;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(stall)));
        if waiting.as_mut().poll(cx).is_ready() {
            self.stalled.cancel();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(cx, &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(cx, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_is_slow_and_no_more() {
        let (near, mut far) = tokio::io::duplex(8);
        let stalled = CancellationToken::new();
        let mut near = Watched::new(near, STALL, stalled.clone());
        let write = async { near.write_all(&[0; 80]).await.unwrap() };
        let read = async {
            let mut taken = [0; 8];
            for _ in 0..10 {
                sleep(STALL * 9 / 10).await;
                far.read_exact(&mut taken).await.unwrap();
            }
        };
        tokio::join!(write, read);
        assert!(!stalled.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_noticed_and_can_still_be_written_to() {
        let (near, mut far) = tokio::io::duplex(8);
        let stalled = CancellationToken::new();
        let mut near = Watched::new(near, STALL, stalled.clone());
        let begun = tokio::time::Instant::now();
        let write = async { near.write_all(&[0; 16]).await.unwrap() };
        let read = async {
            stalled.cancelled().await;
            assert!(begun.elapsed() >= STALL);
            let mut taken = [0; 16];
            far.read_exact(&mut taken).await.unwrap();
        };
        tokio::join!(write, read);
    }
}
