//! A server of event streams, as sources have: each path is one source with instances that count.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::tls;

/// Who leaves more unread is cut off.
const UNREAD_MAX: usize = 1 << 16;

/// What one source tells when it is connected to, and to whom it speaks.
#[derive(Default)]
struct Spot {
    /// Counters of each instance.
    instances: HashMap<String, u64>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    connections: usize,
    last_ids: Vec<Option<String>>,
    headers: Vec<HeaderMap>,
    /// What it answers instead of a stream.
    answer: Option<Answer>,
    /// What it says first, instead of what its instances are.
    greeting: Option<Bytes>,
}

/// An answer that may be anything.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(HeaderName, String)>,
    body: Bytes,
}

/// All that it serves.
#[derive(Clone, Default)]
struct Spots {
    spots: Arc<Mutex<HashMap<String, Spot>>>,
    /// What its instances take for the time, in ms; 0 if they do not say.
    clock: Arc<AtomicI64>,
}

impl Spots {
    fn state(&self, kind: &str, instance: &str, counter: u64) -> Value {
        let mut state = json!({
            "type": kind, "instance": instance, "static": {"region": "eu"},
            "gauges": {"ping_ms": 1.5}, "counters": {"tcp_rx": counter, "tcp_tx": counter * 2},
        });
        self.date(&mut state);
        state
    }

    fn date(&self, document: &mut Value) {
        let at = self.clock.load(Ordering::Relaxed);
        if at > 0 {
            let at = jiff::Timestamp::from_millisecond(at).unwrap();
            document["at"] = at.to_string().into();
        }
    }
}

pub struct Station {
    pub address: SocketAddr,
    /// Who vouches for it, as PEM; it speaks TLS then.
    pub authority: Option<String>,
    spots: Spots,
    server: JoinHandle<()>,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn stream(
    State(spots): State<Spots>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let mut all = spots.spots.lock();
    let spot = all.entry(name).or_default();
    spot.connections += 1;
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
    spot.last_ids.push(last_id);
    spot.headers.push(headers);
    if let Some(answer) = spot.answer.clone() {
        let mut given = answer.body.into_response();
        *given.status_mut() = StatusCode::from_u16(answer.status).unwrap();
        for (name, value) in answer.headers {
            given.headers_mut().insert(name, value.parse().unwrap());
        }
        return given;
    }
    let (sender, mut receiver) = mpsc::channel(UNREAD_MAX);
    if let Some(greeting) = &spot.greeting {
        let _ = sender.try_send(greeting.clone());
    } else {
        let _ = sender.try_send(event(&json!({"type": "initial"})));
        for (instance, counter) in &spot.instances {
            let _ = sender.try_send(event(&spots.state("initial", instance, *counter)));
        }
    }
    spot.listeners.push(sender);
    let chunks = futures_util::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|chunk| chunk.map(Ok::<Bytes, Infallible>))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(chunks)).into_response()
}

fn event(document: &Value) -> Bytes {
    format!("data: {document}\n\n").into()
}

impl Station {
    pub async fn start() -> Station {
        let (spots, router) = Station::served();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Station { address, authority: None, spots, server }
    }

    /// One that speaks TLS, as `localhost`.
    pub async fn start_tls() -> Station {
        let (spots, router) = Station::served();
        let (listener, address, authority) = tls::Listener::bind().await;
        #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Station { address, authority: Some(authority), spots, server }
    }

    fn served() -> (Spots, Router) {
        let spots = Spots::default();
        let router = Router::new().route("/{name}", axum::routing::get(stream));
        (spots.clone(), router.with_state(spots))
    }

    pub fn url(&self, name: &str) -> String {
        match self.authority {
            Some(_) => format!("https://localhost:{}/{name}", self.address.port()),
            None => format!("http://{}/{name}", self.address),
        }
    }

    /// The time, as its instances tell it from now on.
    pub fn set_clock(&self, at_ms: i64) {
        self.spots.clock.store(at_ms, Ordering::Relaxed);
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Spot) -> T) -> T {
        act(self.spots.spots.lock().entry(name.to_owned()).or_default())
    }

    pub fn send(&self, name: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.with(name, |spot| spot.listeners.retain(|one| one.try_send(bytes.clone()).is_ok()));
    }

    pub fn tell(&self, name: &str, document: &Value) {
        let mut document = document.clone();
        self.spots.date(&mut document);
        self.send(name, event(&document));
    }

    /// An instance counts on, and says so.
    pub fn count(&self, name: &str, instance: &str, growth: u64) -> u64 {
        let (kind, counter) = self.with(name, |spot| {
            let known = spot.instances.contains_key(instance);
            let counter = spot.instances.entry(instance.to_owned()).or_default();
            *counter += growth;
            (if known { "update" } else { "create" }, *counter)
        });
        self.send(name, event(&self.spots.state(kind, instance, counter)));
        counter
    }

    /// It has instances that it tells of only when it is asked anew.
    pub fn forget(&self, name: &str, instance: &str) {
        self.with(name, |spot| spot.instances.remove(instance));
    }

    pub fn counter(&self, name: &str, instance: &str) -> u64 {
        self.with(name, |spot| spot.instances[instance])
    }

    pub fn hang_up(&self, name: &str) {
        self.with(name, |spot| spot.listeners.clear());
    }

    /// What it answers from now on instead of a stream.
    pub fn answer(&self, name: &str, answer: Option<(u16, Option<String>)>) {
        match answer {
            None => self.with(name, |spot| spot.answer = None),
            Some((status, location)) => {
                let location = location.map(|to| (header::LOCATION, to));
                self.answer_with(name, status, &location.into_iter().collect::<Vec<_>>(), "");
            }
        }
    }

    /// The same, with headers and a body.
    pub fn answer_with(
        &self,
        name: &str,
        status: u16,
        headers: &[(HeaderName, String)],
        body: impl Into<Bytes>,
    ) {
        let answer = Answer { status, headers: headers.to_vec(), body: body.into() };
        self.with(name, |spot| spot.answer = Some(answer));
    }

    /// What it says first to whoever connects from now on.
    pub fn greet(&self, name: &str, greeting: impl Into<Bytes>) {
        let greeting = greeting.into();
        self.with(name, |spot| spot.greeting = Some(greeting));
    }

    pub fn connections(&self, name: &str) -> usize {
        self.with(name, |spot| spot.connections)
    }

    /// How many connections to it are open.
    pub fn listeners(&self, name: &str) -> usize {
        self.with(name, |spot| {
            spot.listeners.retain(|one| !one.is_closed());
            spot.listeners.len()
        })
    }

    pub fn last_ids(&self, name: &str) -> Vec<Option<String>> {
        self.with(name, |spot| spot.last_ids.clone())
    }

    pub fn header(&self, name: &str, header: &str) -> Option<String> {
        self.with(name, |spot| {
            let last = spot.headers.last()?.get(header)?;
            Some(last.to_str().unwrap().to_owned())
        })
    }
}
