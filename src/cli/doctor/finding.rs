//! One thing that was looked at, how it is, and what to do.

use std::fmt;

use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Ok,
    /// Works, and yet somebody should know.
    Warn,
    /// A replica would not work, or not wholly.
    Fail,
}

#[derive(Debug)]
pub struct Finding {
    check: &'static str,
    pub state: State,
    detail: String,
    /// What to do; empty when all is well.
    advice: String,
}

impl Finding {
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Finding {
        Finding { check, state: State::Ok, detail: detail.into(), advice: String::new() }
    }

    pub fn warn(
        check: &'static str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (detail, advice) = (detail.into(), advice.into());
        Finding { check, state: State::Warn, detail, advice }
    }

    pub fn fail(
        check: &'static str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding { state: State::Fail, ..Finding::warn(check, detail, advice) }
    }

    pub fn as_json(&self) -> Value {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        let mut value = json!({ "check": self.check, "state": state, "detail": self.detail });
        if !self.advice.is_empty() {
            value["advice"] = self.advice.as_str().into();
        }
        value
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The one that matters most is the one that stands out.
        let state = match self.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        write!(f, "{state}  {:<13} {}", self.check, self.detail)?;
        match self.advice.as_str() {
            "" => Ok(()),
            advice => write!(f, ": {advice}"),
        }
    }
}
