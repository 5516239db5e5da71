//! The documents of the wire: what may stand in them, and what is written.
//!
//! A document is read field by field rather than by one derived type, so that every fault is found
//! at once, each with a pointer to the field, and so that `data` stays byte for byte as it came.

mod answer;
mod fields;
mod frame;
mod notice;
mod publish;
mod task;
mod telemetry;

pub use self::answer::{
    PublishedAnswer, PublishedAnswers, cursor_frame, error_frame, gap_frame, ok_frame, pong_frame,
    replayed_frame, reset_frame, status_frame, token_expired_frame, welcome_frame,
};
pub use self::fields::{Fields, Reference};
pub use self::frame::{ClientFrame, Operation, Subscription};
pub use self::notice::{
    NoticeLimits, acknowledge_body, counts_answer, entry_answer, notice_answer, notice_body,
    present_answer, receipt_answer, tally_answer,
};
pub use self::publish::{PublishLimits, publish_body, publish_message};
pub use self::task::{
    TaskLimits, WORD, claim_body, is_word, item_answer, report_body, task_answer, task_body,
};
pub use self::telemetry::{
    SourceBody, ingest_body, invalid, point_answer, source_answer, source_body, source_change,
    source_id,
};
