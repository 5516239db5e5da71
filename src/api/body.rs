//! The body of a request as text, or what is wrong with it.

use axum::body::Bytes;
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
        let reading = Bytes::from_request(request, self);
        let Ok(body) = timeout(settings.body_timeout, reading).await else {
            let seconds = settings.body_timeout.as_secs();
            return Err(Problem::malformed(format!("the body took longer than {seconds} s")));
        };
        let body = body.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let max = settings.body_bytes_max;
                Problem::too_large(format!("a body has at most {max} bytes"))
            }
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
