//! The clock.
use crate::domain::Timestamp;
#[derive(Clone, Default)]
pub struct Clock;
impl Clock {
    pub fn now(&self) -> Timestamp {
        Timestamp(jiff::Timestamp::now().as_millisecond())
    }
}
