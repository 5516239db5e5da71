//! What a feed hands out.

use std::sync::Arc;

use crate::domain::{Cursor, Topic};
use crate::frame::Frame;

#[derive(Debug, Clone)]
pub enum Item {
    /// With its cursor only where resuming from it would miss nothing.
    Message { frame: Arc<Frame>, cursor: bool },
    /// Everything that was missed has been handed out.
    Replayed { from: Cursor, to: Cursor, count: u64 },
    /// The client reloads its snapshot and goes on from the cursor.
    Reset { reason: ResetReason, cursor: Cursor },
    /// So many signals were dropped.
    Gap { topic: Topic, dropped: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The cursor is older than what is kept.
    Expired,
    /// The log does not continue the one in which the cursor was given.
    Epoch,
    /// The session was behind for so long that what it missed is gone.
    Overflow,
}

impl ResetReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            ResetReason::Expired => "expired",
            ResetReason::Epoch => "epoch",
            ResetReason::Overflow => "overflow",
        }
    }
}
