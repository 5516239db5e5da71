//! The words of Tidings and the decisions that need nothing but them.
//!
//! Nothing here knows a clock, a socket, SQL or HTTP: values go in, decisions come out.
//!
//! # Glossary
//! One word, one meaning, in code, SQL, wire, metrics, logs and docs.
//!
//! | word | meaning |
//! |---|---|
//! | *message* | what was published: a row of the log, or a signal that is not kept |
//! | *draft* | a message before it has a number |
//! | *topic* | the name a message is published under |
//! | *pattern* | what a session subscribes to: a topic, or a prefix ending in `*` |
//! | *seq* | the number of a message: one gapless sequence, in commit order |
//! | *cursor* | a place in the log that a client hands back: `<epoch>-<seq>` |
//! | *epoch* | the life of a log; it changes when the log no longer continues what was read |
//! | *signal* | a message that is not kept, and rides in a notification |
//! | *announcement* | what tells every replica that a range of seqs is durable |
//! | *frame* | what goes down a socket |
//! | *session* | one connected client |
//! | *principal* | who a session or request speaks for, and what it may do |
//! | *replica* | one running process |
//! | *task* | a batch operation of a user over many items, worked on under a lease |
//! | *item* | one of the things that a task is about |
//! | *lease* | the right to work on a task, or to speak for sessions, until a moment by the clock of the database |
//! | *term* | the number of a lease; whoever holds an older one writes nothing |
//! | *holder* | the replica or worker that has the lease of a task |
//! | *attempt* | the first run of a task or one of its retries |
//! | *notice* | something that people are told, and of which is known how far it has come |
//! | *recipient* | a user whom a notice is for |
//! | *receipt* | how far a notice has come with one recipient; it only grows |
//! | *inbox* | the notices of one user that have not run out and were not recalled |
//! | *recall* | taking a notice back: it goes from every inbox, its receipts stay |
//! | *presence* | who has a session, on which replica |
//! | *source* | what tells events of its instances; one replica at a time reads it |
//! | *instance* | what a source tells of: facts, gauges and counters |
//! | *event* (of a source) | what it told of an instance |
//! | *reader* | the replica that reads sources, and its loop for one of them |
//! | *roll-up* | what an instance did in a minute, an hour or a day |
//! | *trace* | where a message belongs among what its publisher traces: a `traceparent` |
//! | *lane* | one connection on which batches are written, one after another |
//! | *loop* | a long-lived tokio task, started by `supervise` |

pub mod cursor;
pub mod message;
pub mod notice;
pub mod pattern_set;
pub mod principal;
pub mod replica;
pub mod task;
pub mod telemetry;
pub mod topic;
pub mod trace;

pub use cursor::{Cursor, CursorError, Epoch, Seq};
pub use message::{Class, Draft, Message, Priority, Timestamp};
pub use notice::{Notice, NoticeId, Receipt, ReceiptState, Tally, Target, Urgency};
pub use pattern_set::PatternSet;
pub use principal::{Principal, UserId};
pub use replica::ReplicaId;
pub use task::{
    Counts, ItemResult, ItemStatus, Task, TaskEvent, TaskId, TaskItem, TaskRules, TaskStatus,
};
pub use telemetry::{Event, EventKind, InstanceStatus, SourceId, SourceStatus};
pub use topic::{Pattern, Topic, TopicError};
pub use trace::Trace;
