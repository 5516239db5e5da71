//! The body of a request as text, or what is wrong with it.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use tokio::time::timeout;

use super::Api;
use super::error::Problem;

impl Api {
    /// The JSON of a body, of somebody who is known by now; its reader says what stands in it.
    pub async fn json(&self, headers: &HeaderMap, request: Request) -> Result<String, Problem> {
        if !says_json(headers) {
            return Err(Problem::media_type());
        }
        let settings = &self.inner.settings;
        let too_large = || {
            let max = settings.body_bytes_max;
            Problem::too_large(format!("a body has at most {max} bytes"))
        };
        // One that does not say its length may have any.
        let length = request.body().size_hint().exact();
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        // One that is too long is read as far as it may be: who is still writing reads no answer.
        let _room = self.inner.limits.body(length.min(settings.body_bytes_max))?;
        let reading = Bytes::from_request(request, self);
        let Ok(body) = timeout(settings.body_timeout, reading).await else {
            return Err(Problem::timeout(settings.body_timeout));
        };
        let body = body.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::malformed("the body broke off"),
        })?;
        String::from_utf8(body.into()).map_err(|_| Problem::malformed("the body is not UTF-8"))
    }
}

fn says_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|text| {
            let essence = text.split(';').next().unwrap_or_default().trim();
            // The second is what curl says of any body; the origin was checked, so no page hides behind it.
            ["application/json", "application/x-www-form-urlencoded"]
                .iter()
                .any(|known| essence.eq_ignore_ascii_case(known))
        })
    })
}
