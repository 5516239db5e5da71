//! Sending notices, and seeing what became of them.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, header};
use serde_json::Value;

use super::answer::Undone;
use super::{Client, ClientError};

impl Client {
    /// Sends a notice until somebody answers for it: its idempotency key makes it one.
    pub async fn notice_send(
        &self,
        notice: &Value,
        within: Duration,
    ) -> Result<Value, ClientError> {
        self.document(Method::POST, "/v1/notices", Some(notice), within).await
    }

    /// What stands at a path under `/v1/notices`.
    pub async fn notice_read(&self, path: &str, within: Duration) -> Result<Value, ClientError> {
        self.document(Method::GET, path, None, within).await
    }

    async fn document(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Value, ClientError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        self.insist(within, async |address| {
            let mut request = self.http.request(method.clone(), address.http(path));
            if let Some(body) = &body {
                request = request.header(header::CONTENT_TYPE, "application/json");
                request = request.body(body.clone());
            }
            let text = self.exchange(address, request).await?;
            serde_json::from_slice(&text)
                .map_err(|_| Undone::Never(format!("what answers at {address} is not Tidings")))
        })
        .await
    }
}
