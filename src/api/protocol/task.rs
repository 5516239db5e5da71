//! What is said of tasks: submissions, claims and reports, and a task as it is shown.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::fields::{Faults, Fields};
use crate::api::error::Problem;
use crate::domain::task::TASK_WORD_BYTES_MAX;
use crate::domain::{ItemResult, Principal, Task, TaskId, TaskItem, TaskRules, UserId};
use crate::store::task::{Ending, NewTask, Report, document, time_text};

/// How often an item may be tried again.
const RETRIES_MAX: u32 = 20;

/// How long one try of an item, and a lease of a worker, may be.
const ITEM_TIMEOUT_S_MAX: u32 = 3_600;
const LEASE_S_MAX: u32 = 3_600;

const META_BYTES_MAX: usize = 16 << 10;
const EXECUTOR_BYTES_MAX: usize = 64 << 10;

/// How many actions one claim, and results or items in flight one report, may name.
const ACTIONS_MAX: usize = 100;
const RESULTS_MAX: usize = 10_000;
const IN_FLIGHT_MAX: usize = 1_000;

/// What is told of a word that is none.
pub const WORD: &str = "1 to 200 bytes without control characters";

const CONCURRENCY: u32 = 10;
const RETRIES: u32 = 2;
const ITEM_TIMEOUT_S: u32 = 30;
const LEASE_S: u32 = 30;

#[derive(Debug, Clone, Copy)]
pub struct TaskLimits {
    pub items_max: usize,
    pub concurrency_max: u32,
}

/// A task to be kept. `is_external` judges the executor: whether workers run it, or what is wrong.
pub fn task_body(
    text: &str,
    limits: TaskLimits,
    principal: &Principal,
    mut is_external: impl FnMut(&str) -> Result<bool, String>,
) -> Result<NewTask, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let action = required_word(&mut fields, "action", &mut faults);
    let items = items(&mut fields, limits.items_max, &mut faults);
    let owner = owner(&mut fields, principal, &mut faults);
    let concurrency_max = limits.concurrency_max;
    let concurrency = number(&mut fields, "concurrency", 1..=concurrency_max, &mut faults);
    let retries = number(&mut fields, "retries", 0..=RETRIES_MAX, &mut faults);
    let timeout_s = number(&mut fields, "item_timeout_s", 1..=ITEM_TIMEOUT_S_MAX, &mut faults);
    let at_most_once: Option<bool> = fields.take("at_most_once", "true or false", &mut faults);
    let notice: Option<bool> = fields.take("notice", "true or false", &mut faults);
    let notice = notice.unwrap_or(false);
    if notice && owner.is_none() {
        faults.invalid("/notice", "there is no owner whose inbox it could come to");
    }
    let executor = object(&mut fields, "executor", EXECUTOR_BYTES_MAX, &mut faults);
    let once = at_most_once.unwrap_or(false);
    let meta = object(&mut fields, "meta", META_BYTES_MAX, &mut faults);
    let key = word(&mut fields, "idempotency_key", &mut faults);
    let external = match executor {
        None => {
            faults.malformed("/executor", "is missing: an object such as {\"type\":\"simulate\"}");
            false
        }
        Some(executor) => is_external(executor).unwrap_or_else(|reason| {
            faults.invalid("/executor", reason);
            false
        }),
    };
    fields.finish(&mut faults);
    faults.finish()?;
    let (Some(action), Some(items), Some(executor)) = (action, items, executor) else {
        return Err(Problem::malformed("the task cannot be read"));
    };
    let id = uuid::Uuid::now_v7().simple().to_string();
    Ok(NewTask {
        id: TaskId::parse(&id).expect("a UUID is made of digits and lower-case letters"),
        action,
        owner,
        external,
        executor: executor.into(),
        meta: meta.unwrap_or("{}").into(),
        rules: TaskRules {
            concurrency: concurrency.unwrap_or(CONCURRENCY.min(concurrency_max)),
            retries: retries.unwrap_or(if once { 0 } else { RETRIES }),
            item_timeout: Duration::from_secs(timeout_s.unwrap_or(ITEM_TIMEOUT_S).into()),
            at_most_once: once,
            notice,
        },
        idempotency_key: key.map(|key| principal.idempotency_scope(&key)),
        items,
    })
}

type Items = Vec<(Arc<str>, Option<Arc<str>>)>;

fn items(fields: &mut Fields<'_>, max: usize, faults: &mut Faults) -> Option<Items> {
    let raws: Vec<&RawValue> = fields.take_required("items", "an array of items", faults)?;
    if raws.is_empty() {
        faults.invalid("/items", "at least one item");
    }
    if raws.len() > max {
        faults.too_large(format!("a task has at most {max} items"));
        return None;
    }
    let mut items = Vec::with_capacity(raws.len());
    for (place, raw) in raws.iter().enumerate() {
        let at = format!("/items/{place}");
        let (name, data) = if raw.get().starts_with('{') {
            let Ok(mut item) = Fields::read(raw.get(), &at) else { continue };
            let name: Option<String> = item.take_required("name", "a string", faults);
            let data = item.take_raw("data").filter(|data| *data != "null");
            item.finish(faults);
            (name, data)
        } else {
            let name = serde_json::from_str::<String>(raw.get()).ok();
            if name.is_none() {
                faults.malformed(&at, "must be a name, or an object with name and data");
            }
            (name, None)
        };
        let Some(name) = name else { continue };
        if !is_word(&name) {
            faults.invalid(&at, WORD);
        }
        items.push((Arc::<str>::from(name), data.map(Arc::<str>::from)));
    }
    let mut seen = HashSet::new();
    for (place, (name, _)) in items.iter().enumerate() {
        if !seen.insert(name.clone()) {
            faults.invalid(&format!("/items/{place}"), format!("{name} comes twice"));
        }
    }
    Some(items)
}

/// A user's task is the user's; a server says whose it is.
fn owner(fields: &mut Fields<'_>, principal: &Principal, faults: &mut Faults) -> Option<UserId> {
    let named: Option<String> = fields.take("owner", "a string", faults);
    let Some(named) = named else { return principal.user.clone() };
    match UserId::parse(&named) {
        Ok(owner) => Some(owner),
        Err(error) => {
            faults.invalid("/owner", error.to_string());
            None
        }
    }
}

/// What a worker asks for.
#[derive(Debug, PartialEq)]
pub struct ClaimBody {
    pub actions: Vec<Arc<str>>,
    pub worker: Arc<str>,
    pub lease: Duration,
    pub wait: Duration,
}

pub fn claim_body(text: &str, wait_max: Duration) -> Result<ClaimBody, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let actions: Option<Vec<String>> =
        fields.take_required("actions", "an array of actions", &mut faults);
    let actions = actions.unwrap_or_default();
    if actions.is_empty() || actions.len() > ACTIONS_MAX || !actions.iter().all(|a| is_word(a)) {
        faults.invalid("/actions", format!("1 to {ACTIONS_MAX} actions"));
    }
    let worker = required_word(&mut fields, "worker", &mut faults);
    let lease_s = number(&mut fields, "lease_s", 1..=LEASE_S_MAX, &mut faults);
    let wait_s: Option<u32> = fields.take("wait_s", "a number of seconds", &mut faults);
    fields.finish(&mut faults);
    faults.finish()?;
    Ok(ClaimBody {
        actions: actions.into_iter().map(Arc::from).collect(),
        worker: worker.unwrap_or_else(|| "worker".into()),
        lease: Duration::from_secs(lease_s.unwrap_or(LEASE_S).into()),
        wait: Duration::from_secs(wait_s.unwrap_or(0).into()).min(wait_max),
    })
}

/// What a worker tells; `finish` has no results.
pub fn report_body(text: &str, id: &TaskId, finishes: bool) -> Result<Report, Problem> {
    let mut fields = Fields::read(text, "")?;
    let mut faults = Faults::default();
    let term: Option<i64> = fields.take_required("term", "a number", &mut faults);
    let results: Option<Vec<&RawValue>> = fields.take("results", "an array", &mut faults);
    let results = results.unwrap_or_default();
    if results.len() > RESULTS_MAX {
        faults.too_large(format!("a report has at most {RESULTS_MAX} results"));
    }
    let one = |(place, raw): (usize, &&RawValue)| result(raw.get(), place, &mut faults);
    let results: Vec<ItemResult> =
        results.iter().enumerate().take(RESULTS_MAX).filter_map(one).collect();
    let in_flight: Option<Vec<String>> = match finishes {
        true => None,
        false => fields.take("in_flight", "an array of items", &mut faults),
    };
    if in_flight.as_ref().is_some_and(|names| names.len() > IN_FLIGHT_MAX) {
        faults.invalid("/in_flight", format!("at most {IN_FLIGHT_MAX} items"));
    }
    let release: Option<bool> = match finishes {
        true => None,
        false => fields.take("release", "true or false", &mut faults),
    };
    for (place, name) in in_flight.iter().flatten().enumerate().take(IN_FLIGHT_MAX) {
        if !is_word(name) {
            faults.invalid(&format!("/in_flight/{place}"), WORD);
        }
    }
    fields.finish(&mut faults);
    faults.finish()?;
    let in_flight = in_flight.map(|names| names.into_iter().map(Arc::from).collect());
    Ok(Report {
        id: id.clone(),
        term: term.unwrap_or(0),
        results,
        in_flight,
        ending: match release {
            _ if finishes => Ending::Finish(None),
            Some(true) => Ending::Release,
            _ => Ending::GoesOn,
        },
    })
}

fn result(text: &str, place: usize, faults: &mut Faults) -> Option<ItemResult> {
    let at = format!("/results/{place}");
    let Ok(mut fields) = Fields::read(text, &at) else {
        faults.malformed(&at, "must be an object with item and status");
        return None;
    };
    let item: Option<String> = fields.take_required("item", "a string", faults);
    let status: Option<String> = fields.take_required("status", "a string", faults);
    let error: Option<String> = fields.take("error", "a string", faults);
    let status_at = fields.pointer("status");
    let item_at = fields.pointer("item");
    fields.finish(faults);
    let item: Arc<str> = item?.into();
    if !is_word(&item) {
        faults.invalid(&item_at, WORD);
    }
    match status?.as_str() {
        "succeeded" => Some(ItemResult::succeeded(item)),
        "failed" => Some(ItemResult::failed(item, error.as_deref().unwrap_or("failed"))),
        _ => {
            faults.malformed(&status_at, "must be one of succeeded, failed");
            None
        }
    }
}

/// A task as it is shown.
pub fn task_answer(task: &Task) -> Map<String, Value> {
    let mut answer = document(task);
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    answer.insert("retries".to_owned(), task.rules.retries.into());
    answer.insert("item_timeout_s".to_owned(), task.rules.item_timeout.as_secs().into());
    answer.insert("at_most_once".to_owned(), task.rules.at_most_once.into());
    answer.insert("notice".to_owned(), task.rules.notice.into());
    answer.insert("executor".to_owned(), json(&task.executor));
    answer.insert("meta".to_owned(), json(&task.meta));
    answer
}

pub fn item_answer(item: &TaskItem) -> Value {
    let data = item.data.as_ref().map(|data| serde_json::from_str::<Value>(data));
    json!({
        "name": &*item.name,
        "data": data.and_then(Result::ok),
        "status": item.status.as_str(),
        "error": item.error.as_deref(),
        "attempt": item.attempt,
        "finished_at": item.finished_at.map(time_text),
    })
}

/// Whether it may be an action, a name or a key.
pub fn is_word(text: &str) -> bool {
    (1..=TASK_WORD_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn word(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Option<Arc<str>> {
    let text: String = fields.take(name, "a string", faults)?;
    Some(checked_word(text, name, fields, faults))
}

/// A null is left out, hence missing.
fn required_word(fields: &mut Fields<'_>, name: &str, faults: &mut Faults) -> Option<Arc<str>> {
    let text: String = fields.take_required(name, "a string", faults)?;
    Some(checked_word(text, name, fields, faults))
}

fn checked_word(text: String, name: &str, fields: &Fields<'_>, faults: &mut Faults) -> Arc<str> {
    if !is_word(&text) {
        faults.invalid(&fields.pointer(name), WORD);
    }
    text.into()
}

fn number(
    fields: &mut Fields<'_>,
    name: &str,
    range: std::ops::RangeInclusive<u32>,
    faults: &mut Faults,
) -> Option<u32> {
    let number: u32 = fields.take(name, "a whole number", faults)?;
    if !range.contains(&number) {
        faults.invalid(&fields.pointer(name), format!("{} to {}", range.start(), range.end()));
    }
    Some(number)
}

fn object<'a>(
    fields: &mut Fields<'a>,
    name: &str,
    bytes_max: usize,
    faults: &mut Faults,
) -> Option<&'a str> {
    let text = fields.take_raw(name).filter(|text| *text != "null")?;
    if !text.starts_with('{') {
        faults.malformed(&fields.pointer(name), "must be an object");
    }
    if text.len() > bytes_max {
        faults.too_large(format!("{name} has at most {bytes_max} bytes"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TaskLimits = TaskLimits { items_max: 3, concurrency_max: 50 };

    fn read(text: &str) -> Result<NewTask, Problem> {
        task_body(text, LIMITS, &Principal::server(), |executor| match executor {
            "{}" => Err("type is missing".to_owned()),
            executor => Ok(executor.contains("external")),
        })
    }

    #[test]
    fn a_task_is_read_as_the_protocol_says() {
        let task = read(
            r#"{"action":"cordon","items":["node-1",{"name":"node-2","data":{"pool" :"a"}}],"owner":"42","concurrency":7,"retries":0,"item_timeout_s":5,"executor":{"type":"external"},"meta":{"a" :1},"idempotency_key":"k"}"#,
        )
        .unwrap();
        assert_eq!(task.items[0], ("node-1".into(), None));
        assert_eq!(task.items[1].1.as_deref(), Some(r#"{"pool" :"a"}"#));
        assert_eq!((task.external, &*task.meta), (true, r#"{"a" :1}"#));
        assert_eq!((task.rules.concurrency, task.rules.retries), (7, 0));
        assert_eq!(task.idempotency_key.as_deref(), Some("s k"));
        let task = read(r#"{"action":"a","items":["a"],"executor":{"type":"x"}}"#).unwrap();
        assert_eq!((task.rules.concurrency, task.rules.retries), (10, 2));
        assert_eq!((task.owner, &*task.meta), (None, "{}"));
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_kind() {
        let good = r#""executor":{"type":"x"},"action":"a""#;
        for (text, status, pointer) in [
            ("[]".to_owned(), 400, ""),
            ("{}".to_owned(), 400, "/action"),
            (format!("{{{good}}}"), 400, "/items"),
            (format!(r#"{{{good},"items":["a"],"colour":1}}"#), 400, "/colour"),
            (format!(r#"{{{good},"items":[7]}}"#), 400, "/items/0"),
            (format!(r#"{{{good},"items":[{{"data":1}}]}}"#), 400, "/items/0/name"),
            (format!(r#"{{{good},"items":[]}}"#), 422, "/items"),
            (format!(r#"{{{good},"items":["a","b","a"]}}"#), 422, "/items/2"),
            (format!(r#"{{{good},"items":[""]}}"#), 422, "/items/0"),
            (format!(r#"{{{good},"items":["a","b","c","d"]}}"#), 413, ""),
            (format!(r#"{{{good},"items":["a"],"concurrency":51}}"#), 422, "/concurrency"),
            (format!(r#"{{{good},"items":["a"],"concurrency":"1"}}"#), 400, "/concurrency"),
            (format!(r#"{{{good},"items":["a"],"retries":21}}"#), 422, "/retries"),
            (format!(r#"{{{good},"items":["a"],"item_timeout_s":0}}"#), 422, "/item_timeout_s"),
            (format!(r#"{{{good},"items":["a"],"owner":"a b"}}"#), 422, "/owner"),
            (format!(r#"{{{good},"items":["a"],"meta":7}}"#), 400, "/meta"),
            (r#"{"action":"a","items":["a"]}"#.to_owned(), 400, "/executor"),
            (r#"{"action":"a","items":["a"],"executor":{}}"#.to_owned(), 422, "/executor"),
            (r#"{"action":"","items":["a"],"executor":{"type":"x"}}"#.to_owned(), 422, "/action"),
        ] {
            let problem = read(&text).expect_err(&text);
            assert_eq!(problem.status().as_u16(), status, "{text}");
            assert!(problem.sentence().contains(pointer), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_worker_s_words_are_read() {
        let minute = Duration::from_secs(60);
        let claim = claim_body(r#"{"actions":["a"],"worker":"w1","wait_s":90}"#, minute).unwrap();
        assert_eq!((claim.lease.as_secs(), claim.wait), (30, minute));
        for bad in [
            r#"{"actions":[],"worker":"w"}"#,
            r#"{"actions":["a"]}"#,
            r#"{"actions":["a"],"worker":null}"#,
            r#"{"worker":"w"}"#,
        ] {
            assert!(claim_body(bad, minute).is_err(), "{bad}");
        }
        let id = TaskId::parse("t").unwrap();
        let report = report_body(
            r#"{"term":3,"results":[{"item":"a","status":"succeeded"},{"item":"b","status":"failed"}],"in_flight":["c"]}"#,
            &id,
            false,
        )
        .unwrap();
        assert_eq!(report.results[1].error.as_deref(), Some("failed"));
        assert_eq!((report.term, report.in_flight.unwrap().len()), (3, 1));
        for bad in [
            "{}",
            r#"{"term":"3"}"#,
            r#"{"term":3,"results":[7]}"#,
            r#"{"term":3,"results":[{"item":"a","status":"pending"}]}"#,
            r#"{"term":3,"results":[{"status":"failed"}]}"#,
        ] {
            assert!(report_body(bad, &id, false).is_err(), "{bad}");
        }
        assert_eq!(report_body(r#"{"term":3}"#, &id, true).unwrap().ending, Ending::Finish(None));
        let released = report_body(r#"{"term":3,"release":true}"#, &id, false).unwrap();
        assert_eq!(released.ending, Ending::Release);
        assert!(report_body(r#"{"term":3,"release":true}"#, &id, true).is_err());
        assert!(report_body(r#"{"term":3,"in_flight":[]}"#, &id, true).is_err());
    }
}
