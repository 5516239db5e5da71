//! An installation of Tidings, by its addresses: listeners and publishers are spread over them.

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use super::{BenchError, Contender, Letter, WayIn, WayOut};
use crate::client::{Client, Listening, Posting};
use crate::domain::{Cursor, Pattern};

pub struct Installation {
    client: Client,
}

impl Installation {
    pub fn new(client: Client) -> Installation {
        Installation { client }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A session of its own on one of the addresses.
    pub(super) async fn listen(
        &self,
        place: usize,
        topic: &str,
        after: Option<&Cursor>,
    ) -> Result<Listening, BenchError> {
        Ok(self.client.listen(place, &[pattern(topic)?], after).await?)
    }
}

pub(super) fn pattern(topic: &str) -> Result<Pattern, BenchError> {
    Pattern::parse(topic).map_err(|error| BenchError::Failed(format!("{topic}: {error}")))
}

#[async_trait]
impl Contender for Installation {
    async fn way_in(&self, place: usize) -> Result<Box<dyn WayIn>, BenchError> {
        // Shifted by one against the listeners: with as many of both as there are addresses nobody
        // hears where it publishes.
        Ok(Box::new(Posts(self.client.posting(place + 1).await?)))
    }

    async fn way_out(&self, place: usize, topic: &str) -> Result<Box<dyn WayOut>, BenchError> {
        Ok(Box::new(Hears(self.listen(place, topic, None).await?)))
    }
}

struct Posts(Posting);

#[async_trait]
impl WayIn for Posts {
    async fn publish(&mut self, letters: &[Letter]) -> Result<(), BenchError> {
        Ok(self.0.post(body(letters)).await?)
    }
}

struct Hears(Listening);

#[async_trait]
impl WayOut for Hears {
    async fn hear(mut self: Box<Self>, heard: &(dyn for<'a> Fn(&'a str) + Sync)) -> BenchError {
        loop {
            match self.0.next().await {
                Ok(text) => heard(&text),
                Err(error) => return error.into(),
            }
        }
    }
}

/// As `POST /v1/messages` takes it: a message, or several. No idempotency keys, since nothing is
/// said twice.
fn body(letters: &[Letter]) -> Bytes {
    let size = |letter: &Letter| letter.topic.len() + letter.data.len() + 32;
    let mut body = BytesMut::with_capacity(letters.iter().map(size).sum::<usize>() + 32);
    let one = letters.len() == 1;
    if !one {
        body.put_slice(b"{\"messages\":[");
    }
    for (place, letter) in letters.iter().enumerate() {
        if place > 0 {
            body.put_slice(b",");
        }
        // A topic is made of characters that JSON takes as they are.
        for part in ["{\"topic\":\"", &letter.topic, "\",\"data\":", &letter.data, "}"] {
            body.put_slice(part.as_bytes());
        }
    }
    if !one {
        body.put_slice(b"]}");
    }
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_as_the_protocol_has_them() {
        let letter = |topic: &str| Letter { topic: topic.to_owned(), data: "[1]".to_owned() };
        assert_eq!(body(&[letter("a:1")]), r#"{"topic":"a:1","data":[1]}"#);
        assert_eq!(
            body(&[letter("a"), letter("b")]),
            r#"{"messages":[{"topic":"a","data":[1]},{"topic":"b","data":[1]}]}"#
        );
    }
}
