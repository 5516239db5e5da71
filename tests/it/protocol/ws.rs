//! Plays an example of a WebSocket.
//!
//! `connect <path>` opens one, with headers on the lines below; an earlier one of the same example
//! stays open. `> …` sends, `< …` receives, `<* …` receives in any order, `close CODE` says how it
//! ends, `> close CODE` ends it, `> bytes` sends a binary frame, and `(the replica leaves)` is a signal.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::document::{Failure, Line};
use super::expect;
use super::player::{PATIENCE, Stage};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn play(stage: &mut Stage, lines: &[Line]) -> Result<(), Failure> {
    let mut sockets: Vec<Socket> = Vec::new();
    let mut lines = lines.iter().peekable();
    while let Some(line) = lines.next() {
        let text = line.text.as_str();
        if let Some(target) = text.strip_prefix("connect ") {
            let mut headers = Vec::new();
            while let Some(line) = lines.next_if(|line| is_header(&line.text)) {
                headers.push(line.text.split_once(": ").unwrap());
            }
            sockets.push(connect(stage, line, target, &headers).await?);
            continue;
        }
        let Some(socket) = sockets.last_mut() else {
            return Err(Failure::new(line, "an example begins with connect"));
        };
        if let Some(code) = text.strip_prefix("> close ") {
            let close = CloseFrame { code: code.parse::<u16>().unwrap().into(), reason: "".into() };
            send(socket, line, Message::Close(Some(close))).await?;
        } else if text == "> bytes" {
            send(socket, line, Message::binary(vec![1, 2, 3])).await?;
        } else if let Some(sent) = text.strip_prefix("> ") {
            let sent = send(socket, line, Message::text(stage.filled(sent))).await;
            // Who is still writing what is too large may meet a reset before the close.
            if sent.is_err() && lines.next_if(|line| line.text.starts_with("close 4413")).is_some()
            {
                continue;
            }
            sent?;
        } else if text.starts_with("<* ") {
            let mut group = vec![line];
            while let Some(line) = lines.next_if(|line| line.text.starts_with("<* ")) {
                group.push(line);
            }
            receive_all(stage, socket, group).await?;
        } else if let Some(expected) = text.strip_prefix("< ") {
            let came = frame(socket, line, expected).await?;
            stage.interface.sent(&came).map_err(|wrong| Failure::new(line, wrong))?;
            let value = expect::json(line, expected, &came)?;
            stage.learn(&value);
        } else if let Some(expected) = text.strip_prefix("close ") {
            closed(socket, line, expected).await?;
        } else if text == "(the replica leaves)" {
            stage.replica.signal("-TERM");
            stage.leaving = true;
        } else {
            return Err(Failure::new(line, "not understood"));
        }
    }
    Ok(())
}

fn is_header(text: &str) -> bool {
    let name = text.split_once(": ").map(|(name, _)| name);
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-'))
}

async fn connect(
    stage: &Stage,
    line: &Line,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, Failure> {
    let url = format!("{}{}", stage.replica.url.replace("http://", "ws://"), stage.filled(target));
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, stage.filled(value).parse().unwrap());
    }
    let connected = connect_async(request).await;
    let (socket, response) =
        connected.map_err(|error| Failure::new(line, format!("no WebSocket: {error}")))?;
    for (name, value) in headers.iter().filter(|(name, _)| name.ends_with("Protocol")) {
        let came = response.headers().get(*name).map(|value| value.to_str().unwrap());
        expect::text(line, value, came.unwrap_or("nothing"))?;
    }
    Ok(socket)
}

async fn send(socket: &mut Socket, line: &Line, message: Message) -> Result<(), Failure> {
    let sent = socket.send(message).await;
    sent.map_err(|error| Failure::new(line, format!("cannot be sent: {error}")))
}

/// The next text. A `cursor` that is not expected may come at any time.
async fn frame(socket: &mut Socket, line: &Line, expected: &str) -> Result<String, Failure> {
    let wants_cursor = expected.contains("\"type\":\"cursor\"");
    loop {
        match timeout(PATIENCE, socket.next()).await {
            Err(_) => return Err(Failure::new(line, format!("{expected} did not come"))),
            Ok(Some(Ok(Message::Text(text)))) => {
                if wants_cursor || !text.starts_with("{\"type\":\"cursor\"") {
                    return Ok(text.as_str().to_owned());
                }
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(other) => {
                return Err(Failure::new(line, format!("{expected} expected, {other:?} came")));
            }
        }
    }
}

async fn receive_all(
    stage: &mut Stage,
    socket: &mut Socket,
    mut group: Vec<&Line>,
) -> Result<(), Failure> {
    while let Some(first) = group.first() {
        let expected = |line: &Line| line.text.strip_prefix("<* ").unwrap().to_owned();
        let came = frame(socket, first, &expected(first)).await?;
        stage.interface.sent(&came).map_err(|wrong| Failure::new(first, wrong))?;
        let found =
            group.iter().position(|line| expect::json(line, &expected(line), &came).is_ok());
        // If it is none of them, the first one says why it is not that one.
        let line = group.remove(found.unwrap_or(0));
        let value = expect::json(line, &expected(line), &came)?;
        stage.learn(&value);
    }
    Ok(())
}

async fn closed(socket: &mut Socket, line: &Line, expected: &str) -> Result<(), Failure> {
    loop {
        match timeout(PATIENCE, socket.next()).await {
            Err(_) => return Err(Failure::new(line, "it stays open")),
            Ok(Some(Ok(Message::Close(Some(close))))) => {
                let (code, reason) = (u16::from(close.code), close.reason.as_str());
                let (expected, shown) = expected.split_once(' ').unwrap_or((expected, ""));
                expect::text(line, expected, &code.to_string())?;
                return match shown.is_empty() {
                    true => expect::text(line, "", reason),
                    false => expect::json(line, shown, reason).map(|_| ()),
                };
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Ok(Message::Text(text)))) if text.starts_with("{\"type\":\"cursor\"") => {}
            Ok(Some(Err(Error::Io(_)))) if expected == "4413" => return Ok(()),
            Ok(other) => {
                return Err(Failure::new(
                    line,
                    format!("close {expected} expected, {other:?} came"),
                ));
            }
        }
    }
}
