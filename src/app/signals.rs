//! What tells the process to leave: the first signal lets clients go, the second leaves at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervise::Shutdown;

/// What a process returns that was told twice.
const LEFT_AT_ONCE: u8 = 130;

/// Drains at the first signal; returns at the second.
///
/// A replica that hangs on somebody's pipe takes the end of its standard input for the first: it
/// comes even when whoever started it was killed and could tell nobody.
pub async fn watch(shutdown: Shutdown, hangs_on_stdin: bool) -> u8 {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be watched; the replica leaves when it is killed");
        return std::future::pending().await;
    };
    tokio::select! {
        () = next(&mut terminate, &mut interrupt) => {}
        () = stdin_end(), if hangs_on_stdin => {}
    }
    tracing::info!("leaving: clients are told to go; a second signal leaves at once");
    shutdown.drain();
    next(&mut terminate, &mut interrupt).await;
    tracing::warn!("left at once");
    LEFT_AT_ONCE
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn stdin_end() {
    // A pipe that cannot be read has ended too.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
