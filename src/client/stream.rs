//! One stream of server-sent events, taken apart into frames.
//!
//! The frame stands on the `data:` line whole; its id and its name are in it as well, so those
//! lines are passed over.

use bytes::BytesMut;
use http::header;
use reqwest::Response;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::answer::Undone;
use super::connection::FRAME_BYTES_MAX;
use super::{Address, Client, deepest};

pub(super) struct Stream {
    answer: Response,
    lines: Lines,
}

impl Stream {
    pub(super) async fn open(
        client: &Client,
        address: &Address,
        query: &str,
    ) -> Result<Stream, Undone> {
        let unreachable = |error: &reqwest::Error| {
            Undone::later(format!("{address} cannot be reached: {}", deepest(error)))
        };
        let request = client.http.get(address.http(&format!("/v1/sse?{query}")));
        let answer =
            client.authorized(request).send().await.map_err(|error| unreachable(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if !status.is_success() {
            let body = super::exchange::whole(address, answer).await?;
            return Err(Undone::answered(status, &headers, &body));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(Undone::Never(format!("what answers at {address} sends no events")));
        }
        Ok(Stream { answer, lines: Lines::default() })
    }

    /// A frame, or `None` for a sign of life. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Utf8Bytes>, Undone> {
        loop {
            if let Some(frame) = self.lines.frame()? {
                return Ok(Some(frame));
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => {
                    self.lines.push(&chunk)?;
                    if !self.lines.is_whole() {
                        return Ok(None);
                    }
                }
                Ok(None) => return Err(Undone::later("the stream was ended")),
                Err(error) => return Err(Undone::later(format!("lost: {}", deepest(&error)))),
            }
        }
    }
}

/// What has come and was not handed out. Bounded by the largest frame.
#[derive(Default)]
struct Lines {
    bytes: BytesMut,
    /// How far it was searched for the end of a line in vain.
    searched: usize,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Undone> {
        if self.bytes.len() + chunk.len() > FRAME_BYTES_MAX {
            return Err(Undone::later("a frame has no end"));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn end(&self) -> Option<usize> {
        let rest = self.bytes.get(self.searched..)?;
        rest.iter().position(|byte| *byte == b'\n').map(|at| self.searched + at)
    }

    fn is_whole(&self) -> bool {
        self.end().is_some()
    }

    fn frame(&mut self) -> Result<Option<Utf8Bytes>, Undone> {
        while let Some(end) = self.end() {
            let line = self.bytes.split_to(end + 1).freeze();
            self.searched = 0;
            let line = line.slice(..end);
            if line.starts_with(b"data:") {
                let text = line.slice(b"data:".len()..);
                let text = if text.starts_with(b" ") { text.slice(1..) } else { text };
                let text = Utf8Bytes::try_from(text);
                return text.map(Some).map_err(|_| Undone::later("a frame is no text"));
            }
        }
        self.searched = self.bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut_into_pieces() {
        let text =
            "retry: 700\nevent: welcome\ndata: {\"a\":1}\n\n: quiet\n\nid: a-7\ndata:{\"b\":2}\n\n";
        for size in 1..=text.len() {
            let (mut lines, mut frames) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece).unwrap();
                while let Some(frame) = lines.frame().unwrap() {
                    frames.push(frame.to_string());
                }
            }
            assert_eq!(frames, [r#"{"a":1}"#, r#"{"b":2}"#], "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_text_ends_the_connection() {
        let mut lines = Lines::default();
        lines.push(b"data: \xff\n").unwrap();
        assert!(lines.frame().is_err());
    }
}
