//! The body of a request as text, or what is wrong with it.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};

use super::Api;
use super::error::Problem;

impl Api {
    /// The JSON of a body; its reader says what stands in it.
    pub fn json(
        &self,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<String, Problem> {
        let is_json = headers.get(header::CONTENT_TYPE).is_none_or(|value| {
            value.to_str().is_ok_and(|text| {
                let essence = text.split(';').next().unwrap_or_default().trim();
                // The second is what curl says of any body; the origin was checked, so no page hides behind it.
                ["application/json", "application/x-www-form-urlencoded"]
                    .iter()
                    .any(|known| essence.eq_ignore_ascii_case(known))
            })
        });
        if !is_json {
            return Err(Problem::media_type());
        }
        let body = body.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let max = self.inner.settings.body_bytes_max;
                Problem::too_large(format!("a body has at most {max} bytes"))
            }
            _ => Problem::malformed("the body broke off"),
        })?;
        String::from_utf8(body.into()).map_err(|_| Problem::malformed("the body is not UTF-8"))
    }
}
