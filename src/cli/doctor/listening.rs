//! Whether LISTEN hears, and how long a notification is on its way.
//!
//! Only a notification that comes back tells: a transaction pooler takes LISTEN, answers it, and
//! gives the connection that listens to somebody else.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, Socket};

use super::finding::Finding;
use super::millis;
use crate::store::StoreError;
use crate::store::postgres::connect::{Connector, TlsStream, classify};

/// A channel of its own: replicas that run have no business with it.
const CHANNEL: &str = "tidings_doctor";

/// As patient as a replica's listener.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The first one warms up, and the median of five is not led astray by one.
const ROUNDS: usize = 6;

/// Beyond it people notice.
const ROUND_TRIP_WARN: Duration = Duration::from_millis(100);

const POOLER: &str = "a transaction pooler is in the way: give LISTEN_DATABASE_URL the address of \
                      Postgres itself; until then replicas poll, and signals stay on the replica \
                      that took them";

type Listening = Connection<Socket, TlsStream>;

pub async fn examine(client: &Client, listener: &Connector) -> Vec<Finding> {
    let (listening, mut connection) = match listener.connect_raw().await {
        Ok(connected) => connected,
        Err(error) => {
            let advice = "see that LISTEN_DATABASE_URL, or DATABASE_URL without it, can be reached";
            return vec![Finding::fail("listen", error.to_string(), advice)];
        }
    };
    let listen = format!("listen {CHANNEL}");
    let answered = drive(&mut connection, listening.batch_execute(&listen));
    match timeout(HEARD_WITHIN, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return vec![Finding::fail("listen", error.to_string(), POOLER)],
        Err(_) => return vec![Finding::fail("listen", "LISTEN is not answered", POOLER)],
    }
    let mut trips = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let text = format!("{}/{round}", uuid::Uuid::now_v7().simple());
        let sent = Instant::now();
        match timeout(HEARD_WITHIN, round_trip(client, &mut connection, &text)).await {
            Ok(Ok(())) => trips.push(sent.elapsed()),
            Ok(Err(error)) => {
                return vec![Finding::fail("listen", error.to_string(), "see the server's log")];
            }
            Err(_) => {
                let detail = "LISTEN is accepted and nothing is heard";
                return vec![Finding::fail("listen", detail, POOLER)];
            }
        }
    }
    let mut warm = trips.split_off(1);
    warm.sort_unstable();
    let (median, longest) = (warm[warm.len() / 2], warm[warm.len() - 1]);
    let detail =
        format!("{} from NOTIFY to its arrival, {} at most", millis(median), millis(longest));
    let advice = "look for a busy or distant server, or a slow disk under its log";
    vec![
        Finding::ok("listen", "notifications come back"),
        match median < ROUND_TRIP_WARN {
            true => Finding::ok("round trip", detail),
            false => Finding::warn("round trip", detail, advice),
        },
    ]
}

/// Sends a notification on one connection and hears it on the other.
async fn round_trip(
    client: &Client,
    connection: &mut Listening,
    text: &str,
) -> Result<(), StoreError> {
    let notify = format!("notify {CHANNEL}, '{text}'");
    let sent = async { client.batch_execute(&notify).await.map_err(|error| classify(&error)) };
    let heard = async {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(notification)))
                    if notification.payload() == text =>
                {
                    return Ok(());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(classify(&error)),
                None => return Err(StoreError::Unavailable("the server closed it".to_owned())),
            }
        }
    };
    tokio::try_join!(sent, heard).map(drop)
}

/// Waits for an answer while driving the connection that it comes over.
async fn drive(
    connection: &mut Listening,
    question: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), StoreError> {
    let mut question = std::pin::pin!(question);
    let both = poll_fn(|cx| {
        if let Poll::Ready(result) = question.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        while let Poll::Ready(message) = connection.poll_message(cx) {
            match message {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => break,
            }
        }
        question.as_mut().poll(cx)
    });
    both.await.map_err(|error| classify(&error))
}
