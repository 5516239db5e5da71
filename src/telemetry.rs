//! Event sources in, memory first, few writes, live state and trends out.
pub mod format;
pub mod stream;
