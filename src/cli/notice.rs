//! `tidings notice`: sends notices, and shows how far they have come.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::output::answer;
use super::server::Server;
use crate::domain::NoticeId;

/// The states of receipts in the order in which they are shown.
const COUNTED: [&str; 8] =
    ["total", "pending", "sent", "received", "read", "confirmed", "expired", "online"];

#[derive(Subcommand, Debug)]
pub enum Notice {
    /// Sends a notice to everybody, to roles or to users
    Send(Send),
    /// Lists notices, the newest first
    List(List),
    /// Shows a notice, and how far it has come
    Show(Show),
}

#[derive(Args, Debug)]
pub struct Send {
    /// One line for people
    title: String,
    /// More for people
    #[arg(default_value = "")]
    content: String,
    /// To everybody
    #[arg(long, conflicts_with_all = ["user", "role"])]
    all: bool,
    /// To a user, repeatable or separated by commas
    #[arg(long, value_name = "USER", value_delimiter = ',', conflicts_with = "role")]
    user: Vec<String>,
    /// To those with a role, repeatable or separated by commas
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    role: Vec<String>,
    /// A user who is left out, repeatable or separated by commas
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    except: Vec<String>,
    /// More for programs, as JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// urgent, high, normal or low
    #[arg(long)]
    priority: Option<String>,
    /// Asks recipients to confirm
    #[arg(long)]
    confirm: bool,
    /// After so many seconds it is shown to nobody who has not received it
    #[arg(long, value_name = "SECONDS")]
    expires_in_s: Option<u32>,
    /// Under one key a notice is sent once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Debug)]
pub struct List {
    /// Begins before this notice
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// How many
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Debug)]
pub struct Show {
    /// The id of the notice
    id: String,
    #[command(flatten)]
    asked: Asked,
}

/// What all of them take.
#[derive(Args, Debug)]
pub struct Asked {
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value = "30",
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout_s: u64,
    /// Prints the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

impl Asked {
    fn within(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    async fn read(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.server.client()?.notice_read(path, self.within()).await?)
    }
}

impl Notice {
    pub async fn run(&self) -> Result<ExitCode, Failure> {
        match self {
            Notice::Send(send) => send.run().await?,
            Notice::List(list) => list.run().await?,
            Notice::Show(show) => show.run().await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Send {
    async fn run(&self) -> Result<(), Failure> {
        let body = self.body()?;
        let client = self.asked.server.client()?;
        let sent = client.notice_send(&body, self.asked.within()).await?;
        if self.asked.json {
            answer(&sent);
        } else {
            answer(sent["notice"]["id"].as_str().unwrap_or_default());
        }
        Ok(())
    }

    fn body(&self) -> Result<Value, Failure> {
        let target = match (self.all, self.user.is_empty(), self.role.is_empty()) {
            (true, ..) => json!("all"),
            (_, false, _) => json!({ "users": self.user }),
            (_, _, false) => json!({ "roles": self.role }),
            _ => return Err(Failure::misused("say to whom: --all, --user or --role")),
        };
        // Said again until somebody answers, it must still be one.
        let fresh = || format!("cli-{}", uuid::Uuid::now_v7().simple());
        let mut body = json!({
            "target": target,
            "except": self.except,
            "title": self.title,
            "content": self.content,
            "confirm": self.confirm,
            "idempotency_key": self.idempotency_key.clone().unwrap_or_else(fresh),
        });
        let mut more = Map::new();
        if let Some(data) = &self.data {
            let data: Value = serde_json::from_str(data)
                .map_err(|why| Failure::misused(format!("--data is no JSON ({why})")))?;
            more.insert("data".to_owned(), data);
        }
        if let Some(priority) = &self.priority {
            more.insert("priority".to_owned(), priority.as_str().into());
        }
        if let Some(seconds) = self.expires_in_s {
            more.insert("expires_in_s".to_owned(), seconds.into());
        }
        if let Some(body) = body.as_object_mut() {
            body.extend(more);
        }
        Ok(body)
    }
}

impl List {
    async fn run(&self) -> Result<(), Failure> {
        let mut path = format!("/v1/notices?limit={}", self.limit);
        if let Some(before) = &self.before {
            path.push_str(&format!("&before={}", id(before)?));
        }
        let page = self.asked.read(&path).await?;
        if self.asked.json {
            answer(&page);
            return Ok(());
        }
        for notice in page["notices"].as_array().into_iter().flatten() {
            answer(line(notice));
        }
        Ok(())
    }
}

impl Show {
    async fn run(&self) -> Result<(), Failure> {
        let notice = self.asked.read(&format!("/v1/notices/{}", id(&self.id)?)).await?;
        if self.asked.json {
            answer(&notice);
            return Ok(());
        }
        answer(line(&notice));
        for state in COUNTED {
            answer(format!("{state:>10} {}", notice[state]));
        }
        Ok(())
    }
}

fn id(text: &str) -> Result<NoticeId, Failure> {
    NoticeId::parse(text).ok_or_else(|| Failure::misused(format!("{text:?} is no id of a notice")))
}

/// Time, id, to whom, priority, title.
fn line(notice: &Value) -> String {
    let text = |name: &str| notice[name].as_str().unwrap_or("-").to_owned();
    let target = match (&notice["target"], notice["recipients"].as_u64()) {
        (_, Some(count)) => format!("{count} users"),
        (Value::String(all), None) => all.clone(),
        (target, None) => {
            let roles = target["roles"].as_array().into_iter().flatten();
            roles.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
    };
    let recalled = if notice["recalled_at"].is_null() { "" } else { " (recalled)" };
    format!(
        "{} {} {target} {} {}{recalled}",
        text("created_at"),
        text("id"),
        text("priority"),
        text("title")
    )
}
