//! The parameters of a request: each is taken by name, and what is left over is refused.

use axum::extract::{FromRequestParts, RawQuery};
use axum::http::request::Parts;

use super::error::{FieldError, Problem};
use crate::domain::{Cursor, Pattern};

/// More parameters than any request has; one with more is refused.
const PARAMETERS_MAX: usize = 1_000;

pub struct Query {
    parameters: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query, Problem> {
        let Ok(RawQuery(raw)) = RawQuery::from_request_parts(parts, state).await;
        let raw = raw.unwrap_or_default();
        let parsed = form_urlencoded::parse(raw.as_bytes()).into_owned();
        let parameters: Vec<(String, String)> = parsed.take(PARAMETERS_MAX + 1).collect();
        if parameters.len() > PARAMETERS_MAX {
            let detail = format!("a request has at most {PARAMETERS_MAX} parameters");
            return Err(Problem::malformed(detail));
        }
        Ok(Query { parameters, errors: Vec::new() })
    }
}

impl Query {
    /// The value of a parameter that comes once; the last one counts.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.take_all(name).pop()
    }

    pub fn take_all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) =
            std::mem::take(&mut self.parameters).into_iter().partition(|(own, _)| own == name);
        self.parameters = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(own, _)| own == name)
    }

    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(format!("/{name}"), detail));
    }

    pub fn take_cursor(&mut self, name: &str) -> Option<Cursor> {
        let text = self.take(name)?;
        match Cursor::parse(&text) {
            Ok(cursor) => Some(cursor),
            Err(error) => {
                self.refuse(name, error.to_string());
                None
            }
        }
    }

    /// A number in a range; what lies beyond the end counts as the end.
    pub fn take_number(&mut self, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let Some(text) = self.take(name) else { return default.min(max) };
        match text.parse::<u64>() {
            Ok(number) if number >= min => number.min(max),
            _ => {
                self.refuse(name, format!("a number from {min} to {max}"));
                default
            }
        }
    }

    /// `topics=a,b` and `topic=a&topic=b` mean the same.
    pub fn take_patterns(&mut self) -> Vec<Pattern> {
        let lists = self.take_all("topics");
        let texts: Vec<String> = lists
            .iter()
            .flat_map(|list| list.split(','))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .chain(self.take_all("topic"))
            .collect();
        let mut patterns = Vec::new();
        for text in texts {
            match Pattern::parse(&text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.refuse("topics", error.to_string()),
            }
        }
        patterns
    }

    /// Refuses what nobody took.
    pub fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.parameters) {
            self.refuse(&name, "unknown parameter");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::bad_fields(self.errors)) }
    }
}
