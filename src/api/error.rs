//! Every status code and every close code, and the texts that go with them. No other file knows one.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::auth::AuthError;
use crate::domain::Cursor;
use crate::feed::FeedError;
use crate::notices::NoticeError;
use crate::publish::PublishError;
use crate::store::StoreError;

/// RFC 9457. Nothing of what was asked for has been done.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    cursor: Option<Cursor>,
    retry_after_s: Option<u32>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> FieldError {
        FieldError { pointer: pointer.into(), detail: detail.into() }
    }
}

impl Problem {
    fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem { status, name, detail, errors: Vec::new(), cursor: None, retry_after_s: None }
    }

    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    pub fn bad_fields(errors: Vec<FieldError>) -> Problem {
        let detail = "some fields are missing, unknown or of another type";
        Problem { errors, ..Problem::malformed(detail) }
    }

    pub fn invalid(errors: Vec<FieldError>) -> Problem {
        let detail = "some fields break a rule";
        Problem { errors, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail) }
    }

    pub fn unauthenticated(error: &AuthError) -> Problem {
        match error {
            AuthError::NoKeys => Problem::unavailable(error.to_string(), 2),
            _ => Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", error.to_string()),
        }
    }

    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "conflict", detail)
    }

    pub fn no_task() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such task")
    }

    pub fn nothing_here() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path")
    }

    pub fn no_notice() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such notice")
    }

    pub fn no_source() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such source")
    }

    pub fn no_instance() -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such instance")
    }

    pub fn method() -> Problem {
        let detail = "this path does not take this method";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
    }

    pub fn gone(oldest: Cursor) -> Problem {
        let detail = "the cursor is no longer good: reload, and go on from the one given here";
        let cursor = Some(oldest);
        Problem { cursor, ..Problem::new(StatusCode::GONE, "gone", detail) }
    }

    pub fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    }

    /// The client may try again, on another connection: the rest of the body may come yet.
    pub fn timeout(given: Duration) -> Problem {
        let detail = format!("the body took longer than {} s", given.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail)
    }

    pub fn media_type() -> Problem {
        let detail = "the body must be application/json";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail)
    }

    pub fn too_many(detail: impl Into<String>) -> Problem {
        let retry_after_s = Some(1);
        Problem { retry_after_s, ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many", detail) }
    }

    pub fn unavailable(detail: impl Into<String>, retry_after_s: u32) -> Problem {
        let retry_after_s = Some(retry_after_s);
        Problem {
            retry_after_s,
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }

    fn refused(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "refused", detail)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The word for it in an `error` frame.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The text for it in an `error` frame, where fields have no place of their own.
    pub fn sentence(&self) -> String {
        let fields: Vec<String> = self
            .errors
            .iter()
            .map(|error| format!("{}: {}", error.pointer, error.detail))
            .collect();
        if fields.is_empty() { self.detail.clone() } else { fields.join("; ") }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            detail: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<String>,
        }
        let body = Body {
            r#type: format!("/problems/{}", self.name),
            title: self.status.canonical_reason().unwrap_or(self.name),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            cursor: self.cursor.as_ref().map(ToString::to_string),
        };
        let text = serde_json::to_string(&body).unwrap_or_default();
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], text).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
            // What is left of the body is not read, so nothing can follow it on this connection.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Problem {
        let text = error.to_string();
        match error {
            PublishError::Full => Problem::too_many(text),
            PublishError::Unavailable | PublishError::Unknown | PublishError::Leaving => {
                Problem::unavailable(text, 1)
            }
            PublishError::TooLarge(_) => Problem::too_large(text),
            PublishError::Refused(_) => Problem::refused(text),
        }
    }
}

impl From<FeedError> for Problem {
    fn from(error: FeedError) -> Problem {
        match error {
            FeedError::NotReady => Problem::unavailable(error.to_string(), 1),
            FeedError::Busy => Problem::too_many(error.to_string()),
        }
    }
}

impl From<NoticeError> for Problem {
    fn from(error: NoticeError) -> Problem {
        match error {
            NoticeError::Full => Problem::too_many(error.to_string()),
            NoticeError::Leaving => Problem::unavailable(error.to_string(), 1),
            NoticeError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::Unavailable(_) => Problem::unavailable("the log cannot be reached", 1),
            StoreError::Full(_) => Problem::too_many(error.to_string()),
            error => Problem::refused(error.to_string()),
        }
    }
}

pub async fn not_found() -> Problem {
    Problem::nothing_here()
}

pub async fn method_not_allowed() -> Problem {
    Problem::method()
}

/// Why a WebSocket is closed from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    Asked,
    Leaving,
    TryLater,
    Malformed,
    Unauthenticated,
    Forbidden,
    TooSlow,
    Limit,
    FrameTooLarge,
    TooManyFrames,
}

impl Close {
    pub const fn code(self) -> u16 {
        match self {
            Close::Asked => 1000,
            Close::Leaving => 1012,
            Close::TryLater => 1013,
            Close::Malformed => 4400,
            Close::Unauthenticated => 4401,
            Close::Forbidden => 4403,
            Close::TooSlow => 4408,
            Close::Limit => 4409,
            Close::FrameTooLarge => 4413,
            Close::TooManyFrames => 4429,
        }
    }

    /// When to come back, spread at random so that a fleet does not return at once.
    pub fn reason(self) -> String {
        let wait_ms = match self {
            Close::Leaving => 0..2_000_u32,
            Close::TooSlow => 500..2_000,
            Close::TryLater | Close::Limit | Close::TooManyFrames => 2_000..10_000,
            _ => return String::new(),
        };
        format!("{{\"retry_after_ms\":{}}}", rand::random_range(wait_ms))
    }
}

/// How a session that cannot be opened is closed, for clients that see no status.
impl From<&Problem> for Close {
    fn from(problem: &Problem) -> Close {
        match problem.status {
            StatusCode::UNAUTHORIZED => Close::Unauthenticated,
            StatusCode::FORBIDDEN => Close::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Close::Limit,
            StatusCode::PAYLOAD_TOO_LARGE => Close::FrameTooLarge,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INTERNAL_SERVER_ERROR => Close::TryLater,
            _ => Close::Malformed,
        }
    }
}
