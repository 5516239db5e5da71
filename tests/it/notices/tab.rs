//! A browser's tab: a session, and what it was given.

use serde_json::{Value, json};

use super::token;
use crate::client::{Socket, connect};

pub struct Tab {
    socket: Socket,
    /// Notices in the order in which they came: id, and whether as a replay.
    pub notices: Vec<(String, bool)>,
    pub recalled: Vec<String>,
    pub counts: (u64, u64),
    pub gaps: u64,
    pub others: Vec<Value>,
    next_ref: u64,
}

impl Tab {
    pub async fn open(url: &str, user: &str) -> Tab {
        Tab::open_at(url, user, "").await
    }

    /// With further parameters.
    pub async fn open_at(url: &str, user: &str, parameters: &str) -> Tab {
        let target = format!("/v1/ws?access_token={}{parameters}", token(user));
        let mut socket = connect(url, &target, &[]).await.unwrap();
        assert_eq!(socket.frame().await["type"], "welcome");
        Tab {
            socket,
            notices: Vec::new(),
            recalled: Vec::new(),
            counts: (0, 0),
            gaps: 0,
            others: Vec::new(),
            next_ref: 0,
        }
    }

    fn take(&mut self, frame: Value) {
        let number = |name: &str| frame["data"][name].as_u64().unwrap();
        match frame["kind"].as_str() {
            Some("notice") => {
                let id = frame["data"]["id"].as_str().unwrap().to_owned();
                assert_eq!(frame["key"], *id);
                assert!(frame["seq"].as_u64().unwrap() > 0);
                let replay = frame["replay"] == true;
                assert!(!(replay && frame.get("cursor").is_some()), "{frame}");
                self.notices.push((id, replay));
            }
            Some("notice.recalled") => {
                self.recalled.push(frame["data"]["id"].as_str().unwrap().to_owned());
            }
            Some("inbox.counts") => self.counts = (number("unread"), number("unconfirmed")),
            _ if frame["type"] == "gap" => self.gaps += frame["dropped"].as_u64().unwrap(),
            _ => self.others.push(frame),
        }
    }

    /// Takes what comes until it is so.
    pub async fn until(&mut self, what: &str, mut state: impl FnMut(&Tab) -> bool) {
        while !state(self) {
            let next = self.socket.next().await;
            let frame = next.unwrap_or_else(|closed| panic!("{what}: closed {closed:?}"));
            self.take(frame);
        }
    }

    pub async fn until_notices(&mut self, ids: &[&str]) {
        self.until(&format!("{ids:?}"), |tab| tab.notices.len() >= ids.len()).await;
        let came: Vec<&str> = self.notices.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(came, ids);
    }

    pub async fn until_counts(&mut self, unread: u64, unconfirmed: u64) {
        self.until(&format!("{unread} unread"), |tab| tab.counts == (unread, unconfirmed)).await;
    }

    /// Everything that was sent before this has been taken when it returns.
    pub async fn settle(&mut self) {
        self.operation(json!({"op": "ping"}), "pong").await;
    }

    pub async fn say(&mut self, op: &str, ids: &[&str]) {
        self.operation(json!({"op": op, "ids": ids}), "ok").await;
    }

    async fn operation(&mut self, mut frame: Value, answer: &str) {
        self.next_ref += 1;
        let reference = self.next_ref;
        frame["ref"] = reference.into();
        self.socket.send(&frame).await;
        let answered = |one: &Value| one["ref"] == reference;
        self.until(answer, |tab| tab.others.iter().any(answered)).await;
        let came = self.others.iter().find(|one| answered(one)).unwrap();
        assert_eq!(came["type"], answer, "{came}");
    }
}
