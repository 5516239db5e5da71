//! The signals of the process: the first lets clients go, the second leaves at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervise::Shutdown;

/// What a process returns that was told twice.
const LEFT_AT_ONCE: u8 = 130;

/// Drains at the first signal; returns at the second.
pub async fn watch(shutdown: Shutdown) -> u8 {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::error!("signals cannot be watched; the replica leaves when it is killed");
        return std::future::pending().await;
    };
    next(&mut terminate, &mut interrupt).await;
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
