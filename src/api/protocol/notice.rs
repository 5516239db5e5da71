//! What is said of notices: what is sent and acknowledged, and how they are shown.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::fields::{Faults, Fields};
use super::publish::is_shallow;
use super::task::is_word;
use crate::api::error::Problem;
use crate::domain::notice::{Counts, role_topic};
use crate::domain::{
    Notice, NoticeId, Principal, Receipt, ReceiptState, Tally, Target, Timestamp, Urgency, UserId,
};
use crate::store::notice::{Entry, NewNotice};
use crate::store::presence::PresentUser;
use crate::store::task::time_text;

const TITLE_BYTES_MAX: usize = 500;
const CONTENT_BYTES_MAX: usize = 64 << 10;
const ROLES_MAX: usize = 100;

/// How many notices one acknowledgement may name.
pub const IDS_MAX: usize = 1_000;

/// Room in a message for everything that is not content and data.
const FIELDS_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy)]
pub struct NoticeLimits {
    pub users_max: usize,
    pub data_bytes_max: usize,
    pub expires_s_max: u32,
}

pub fn notice_body(
    text: &str,
    limits: NoticeLimits,
    principal: &Principal,
) -> Result<NewNotice, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let title: Option<String> = fields.take_required("title", "a string", &mut faults);
    let content: Option<String> = fields.take("content", "a string", &mut faults);
    let data = fields.take_raw("data").filter(|data| *data != "null").unwrap_or("{}");
    if !is_shallow(data) {
        faults.invalid("/data", "is nested too deep");
    }
    let except = users(&mut fields, "except", "", limits.users_max, &mut faults);
    let target = target(&mut fields, &except, limits.users_max, &mut faults);
    let priority: Option<String> = fields.take("priority", "a string", &mut faults);
    let confirm: Option<bool> = fields.take("confirm", "true or false", &mut faults);
    let expires_in_s: Option<u32> = fields.take("expires_in_s", "a whole number", &mut faults);
    let key: Option<String> = fields.take("idempotency_key", "a string", &mut faults);
    fields.finish(&mut faults);
    let (title, content) = (title.unwrap_or_default(), content.unwrap_or_default());
    if title.is_empty() || title.len() > TITLE_BYTES_MAX || title.chars().any(char::is_control) {
        faults
            .invalid("/title", format!("1 to {TITLE_BYTES_MAX} bytes without control characters"));
    }
    if content.contains('\0') {
        faults.invalid("/content", "a text without the character 0");
    }
    if content.len() > CONTENT_BYTES_MAX {
        faults.too_large(format!("content has at most {CONTENT_BYTES_MAX} bytes"));
    }
    let room = limits.data_bytes_max.saturating_sub(FIELDS_BYTES + TITLE_BYTES_MAX);
    if content.len() + data.len() > room {
        faults.too_large(format!("content and data have at most {room} bytes together"));
    }
    let urgency = match priority.as_deref().map(Urgency::parse) {
        Some(None) => {
            faults.invalid("/priority", "one of urgent, high, normal, low");
            Urgency::default()
        }
        given => given.flatten().unwrap_or_default(),
    };
    let longest = limits.expires_s_max;
    if expires_in_s.is_some_and(|seconds| seconds == 0 || seconds > longest) {
        faults.invalid("/expires_in_s", format!("1 to {longest}"));
    }
    if key.as_ref().is_some_and(|key| !is_word(key)) {
        faults.invalid("/idempotency_key", super::WORD);
    }
    faults.finish()?;
    let id = uuid::Uuid::now_v7().simple().to_string();
    Ok(NewNotice {
        id: NoticeId::parse(&id).expect("a UUID is made of digits and lower-case letters"),
        target: target.ok_or_else(|| Problem::malformed("the notice cannot be read"))?,
        except,
        title: title.into(),
        content: content.into(),
        data: data.into(),
        urgency,
        confirm: confirm.unwrap_or(false),
        expires_in_s,
        sender: principal.user.clone(),
        idempotency_key: key.map(|key| principal.idempotency_scope(&key)),
    })
}

fn target(
    fields: &mut Fields<'_>,
    except: &[UserId],
    users_max: usize,
    faults: &mut Faults,
) -> Option<Target> {
    const WHAT: &str = "\"all\", {\"users\":[…]} or {\"roles\":[…]}";
    let Some(text) = fields.take_raw("target") else {
        faults.malformed("/target", format!("is missing: {WHAT}"));
        return None;
    };
    if text == "\"all\"" {
        return Some(Target::All);
    }
    let Ok(mut own) = Fields::read(text, "/target") else {
        faults.malformed("/target", format!("must be {WHAT}"));
        return None;
    };
    let (has_users, has_roles) = (own.has("users"), own.has("roles"));
    if has_users == has_roles {
        faults.malformed("/target", format!("must be {WHAT}"));
        return None;
    }
    let target = if has_users {
        let left_out: HashSet<&UserId> = except.iter().collect();
        let mut named = users(&mut own, "users", "/target", users_max, faults);
        named.retain(|user| !left_out.contains(user));
        if named.is_empty() {
            faults.invalid("/target/users", "at least one who is not left out");
        }
        Target::Users(named)
    } else {
        let roles: Option<Vec<String>> = own.take("roles", "an array of roles", faults);
        let mut roles = roles.unwrap_or_default();
        let mut seen = HashSet::new();
        roles.retain(|role| seen.insert(role.clone()));
        if roles.is_empty() || roles.len() > ROLES_MAX {
            faults.invalid("/target/roles", format!("1 to {ROLES_MAX} roles"));
        }
        if roles.iter().any(|role| role.is_empty() || role_topic(role).is_none()) {
            faults.invalid("/target/roles", "each of the characters A-Z a-z 0-9 _ . : / @ -");
        }
        Target::Roles(roles.into_iter().map(Arc::from).collect())
    };
    own.finish(faults);
    Some(target)
}

/// Each once, in the order in which they were named.
fn users(
    fields: &mut Fields<'_>,
    name: &str,
    at: &str,
    max: usize,
    faults: &mut Faults,
) -> Vec<UserId> {
    let named: Option<Vec<String>> = fields.take(name, "an array of users", faults);
    let named = named.unwrap_or_default();
    if named.len() > max {
        faults.too_large(format!("{name} has at most {max} users"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut users = Vec::with_capacity(named.len());
    for (place, text) in named.iter().enumerate() {
        match UserId::parse(text) {
            Ok(user) if seen.insert(user.clone()) => users.push(user),
            Ok(_) => {}
            Err(error) => faults.invalid(&format!("{at}/{name}/{place}"), error.to_string()),
        }
    }
    users
}

/// Which notices are acknowledged; `None` is all of them.
pub fn acknowledge_body(text: &str) -> Result<Option<Vec<NoticeId>>, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let all: Option<bool> = fields.take("all", "true", &mut faults);
    let all = all.unwrap_or(false);
    if all && fields.has("ids") {
        faults.malformed("/ids", "either ids, an array of notices, or all, which is true");
    }
    let ids = if all { Vec::new() } else { notice_ids(&mut fields, &mut faults) };
    fields.finish(&mut faults);
    faults.finish()?;
    Ok(if all { None } else { Some(ids) })
}

pub(super) fn notice_ids(fields: &mut Fields<'_>, faults: &mut Faults) -> Vec<NoticeId> {
    let named: Option<Vec<String>> = fields.take_required("ids", "an array of notices", faults);
    let named = named.unwrap_or_default();
    if named.len() > IDS_MAX {
        faults.too_large(format!("ids has at most {IDS_MAX} notices"));
        return Vec::new();
    }
    let mut ids = Vec::with_capacity(named.len());
    for (place, text) in named.iter().enumerate() {
        match NoticeId::parse(text) {
            Some(id) => ids.push(id),
            None => faults.invalid(&format!("/ids/{place}"), "the id of a notice"),
        }
    }
    ids
}

fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| time_text(at).into())
}

fn raw(data: &str) -> Value {
    serde_json::from_str::<&RawValue>(data)
        .ok()
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or(Value::Null)
}

/// A notice as its senders see it.
pub fn notice_answer(notice: &Notice) -> Map<String, Value> {
    let except: Vec<&str> = notice.except.iter().map(UserId::as_str).collect();
    let target = match &notice.target {
        Target::All => json!("all"),
        Target::Users(_) => json!("users"),
        Target::Roles(roles) => {
            json!({ "roles": roles.iter().map(|role| &**role).collect::<Vec<_>>() })
        }
    };
    let answer = json!({
        "id": notice.id.as_str(),
        "target": target,
        "except": except,
        "title": &*notice.title,
        "content": &*notice.content,
        "data": raw(&notice.data),
        "priority": notice.urgency.as_str(),
        "confirm": notice.confirm,
        "sender": notice.sender.as_ref().map(UserId::as_str),
        "recipients": notice.recipients,
        "created_at": time(Some(notice.created_at)),
        "expires_at": time(notice.expires_at),
        "recalled_at": time(notice.recalled_at),
        "sending": notice.sending,
    });
    match answer {
        Value::Object(answer) => answer,
        _ => Map::new(),
    }
}

pub fn tally_answer(tally: &Tally) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.insert("total".to_owned(), tally.total().into());
    for state in ReceiptState::ALL {
        answer.insert(state.as_str().to_owned(), tally.of(state).into());
    }
    answer.insert("online".to_owned(), tally.online.into());
    answer
}

pub fn receipt_answer(receipt: &Receipt) -> Value {
    json!({
        "user": receipt.user.as_str(),
        "state": receipt.state.as_str(),
        "sent_at": time(receipt.sent_at),
        "received_at": time(receipt.received_at),
        "read_at": time(receipt.read_at),
        "confirmed_at": time(receipt.confirmed_at),
    })
}

/// A notice as its recipient sees it.
pub fn entry_answer(entry: &Entry) -> Value {
    json!({
        "id": entry.id.as_str(),
        "title": &*entry.title,
        "content": &*entry.content,
        "data": raw(&entry.data),
        "priority": entry.urgency.as_str(),
        "confirm": entry.confirm,
        "state": entry.state.as_str(),
        "created_at": time(Some(entry.created_at)),
        "expires_at": time(entry.expires_at),
        "read_at": time(entry.read_at),
        "confirmed_at": time(entry.confirmed_at),
    })
}

pub fn counts_answer(counts: Counts) -> Value {
    json!({ "unread": counts.unread, "unconfirmed": counts.unconfirmed })
}

pub fn present_answer(present: &PresentUser) -> Value {
    json!({
        "user": present.user.as_str(),
        "sessions": present.sessions,
        "since": time(Some(present.since)),
        "replicas": present.replicas.iter().map(|name| &**name).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: NoticeLimits =
        NoticeLimits { users_max: 3, data_bytes_max: 10_000, expires_s_max: 100 };

    fn read(text: &str) -> Result<NewNotice, Problem> {
        notice_body(text, LIMITS, &Principal::server())
    }

    #[test]
    fn a_notice_is_read_as_the_protocol_says() {
        let whole = r#"{"target":{"users":["1","2","1","3"]},"except":["3"],"title":"T","content":"C","data":{"a" : 1},"priority":"urgent","confirm":true,"expires_in_s":60,"idempotency_key":"k"}"#;
        assert!(read(whole).is_err(), "four are more than three");
        let notice = read(&whole.replace(",\"1\",\"3\"", ",\"1\"")).unwrap();
        let names: Vec<UserId> = ["1", "2"].map(|name| UserId::parse(name).unwrap()).into();
        assert_eq!(notice.target, Target::Users(names));
        assert_eq!((&*notice.data, notice.urgency), (r#"{"a" : 1}"#, Urgency::Urgent));
        assert_eq!(notice.idempotency_key.as_deref(), Some("s k"));
        let least = read(r#"{"target":"all","title":"T"}"#).unwrap();
        assert_eq!((least.target, &*least.data, least.confirm), (Target::All, "{}", false));
        let roles = read(r#"{"target":{"roles":["ops","ops"]},"title":"T"}"#).unwrap();
        assert_eq!(roles.target, Target::Roles(vec!["ops".into()]));
    }

    #[test]
    fn every_fault_is_told() {
        for (text, status) in [
            ("[]", 400),
            ("{}", 400),
            (r#"{"target":"everybody","title":"T"}"#, 400),
            (r#"{"target":{},"title":"T"}"#, 400),
            (r#"{"target":{"users":["1"],"roles":["a"]},"title":"T"}"#, 400),
            (r#"{"target":{"users":"1"},"title":"T"}"#, 400),
            (r#"{"target":{"users":["1"],"other":1},"title":"T"}"#, 400),
            (r#"{"target":"all","title":"T","other":1}"#, 400),
            (r#"{"target":{"users":[]},"title":"T"}"#, 422),
            (r#"{"target":{"users":["a b"]},"title":"T"}"#, 422),
            (r#"{"target":{"users":["1"]},"except":["1"],"title":"T"}"#, 422),
            (r#"{"target":{"roles":[]},"title":"T"}"#, 422),
            (r#"{"target":{"roles":["a,b"]},"title":"T"}"#, 422),
            (r#"{"target":"all","title":""}"#, 422),
            (r#"{"target":"all","title":"a\u0000"}"#, 422),
            (r#"{"target":"all","title":"T","content":"\u0000"}"#, 422),
            (r#"{"target":"all","title":"T","priority":"most"}"#, 422),
            (r#"{"target":"all","title":"T","expires_in_s":0}"#, 422),
            (r#"{"target":"all","title":"T","expires_in_s":101}"#, 422),
            (r#"{"target":{"users":["1","2","3","4"]},"title":"T"}"#, 413),
        ] {
            assert_eq!(read(text).unwrap_err().status().as_u16(), status, "{text}");
        }
        let large = format!(r#"{{"target":"all","title":"T","data":"{}"}}"#, "x".repeat(9_000));
        assert_eq!(read(&large).unwrap_err().status().as_u16(), 413);
    }

    #[test]
    fn an_acknowledgement_names_some_or_says_all() {
        let one = NoticeId::parse("n").unwrap();
        assert_eq!(acknowledge_body(r#"{"ids":["n"]}"#), Ok(Some(vec![one])));
        assert_eq!(acknowledge_body(r#"{"all":true}"#), Ok(None));
        for (text, status) in [
            ("{}", 400),
            (r#"{"all":false}"#, 400),
            (r#"{"all":true,"ids":["n"]}"#, 400),
            (r#"{"ids":"n"}"#, 400),
            (r#"{"ids":["N"]}"#, 422),
        ] {
            assert_eq!(acknowledge_body(text).unwrap_err().status().as_u16(), status, "{text}");
        }
    }
}
