//! The verdict in words, and for machines.

use std::fmt;

use serde_json::{Map, Value, json};

use super::Run;
use super::ledger::{Figures, Findings, Kind};
use super::record::Record;

/// What came of a run.
pub struct Outcome {
    figures: Figures,
    findings: Findings,
    /// Why it is not all that could be said; empty when everything was checked.
    unchecked: Vec<String>,
    run: String,
    clients: usize,
    seed: u64,
    lasted_s: u64,
    record: &'static str,
}

pub(super) fn outcome(run: &Run, record: &Record, ended: bool) -> Outcome {
    let ledger = run.ledger.lock();
    let mut unchecked = run.troubles.lock().others.clone();
    if ledger.apart() > 0 && !ledger.is_set_back() {
        unchecked.push(format!(
            "{} clients have no connection in the end: {}",
            ledger.apart(),
            run.clients_told()
        ));
    }
    if !ended && !ledger.is_set_back() && unchecked.is_empty() {
        unchecked.push("it was ended before clients could have had everything".to_owned());
    }
    // Besides the marks.
    if ledger.figures.accepted <= 2 {
        unchecked.push("no message was accepted".to_owned());
    }
    let mut figures = ledger.figures.clone();
    figures.unknown += ledger.unanswered();
    Outcome {
        figures,
        findings: ledger.findings().clone(),
        unchecked,
        run: run.plan.run.clone(),
        clients: run.settings.clients,
        seed: run.settings.seed,
        lasted_s: run.began.elapsed().as_secs(),
        record: record.name(),
    }
}

impl Outcome {
    pub fn is_bad(&self) -> bool {
        !self.findings.is_empty()
    }

    pub fn is_whole(&self) -> bool {
        self.unchecked.is_empty()
    }

    fn word(&self) -> &'static str {
        match (self.is_bad(), self.is_whole()) {
            (true, _) => "bad",
            (false, true) => "good",
            (false, false) => "unknown",
        }
    }

    pub fn as_json(&self) -> Value {
        let Figures { accepted, refused, unknown, logged, delivered, .. } = self.figures;
        let Figures { repeated, cuts, resumes, resets, gaps, .. } = self.figures;
        let violations: Map<String, Value> = Kind::ALL
            .into_iter()
            .map(|kind| (kind.as_str().to_owned(), self.findings.count(kind).into()))
            .collect();
        let examples: Vec<&str> =
            self.findings.examples().iter().map(|(_, text)| text.as_str()).collect();
        let latency = |percent| self.figures.latency.percentile_ms(percent);
        json!({
            "verdict": self.word(),
            "violations": violations,
            "examples": examples,
            "unchecked": self.unchecked,
            "accepted": accepted,
            "refused": refused,
            "unknown": unknown,
            "logged": logged,
            "delivered": delivered,
            "repeated": repeated,
            "cuts": cuts,
            "resumes": resumes,
            "resets": resets,
            "gaps": gaps,
            "latency_p50_ms": latency(50),
            "latency_p99_ms": latency(99),
            "clients": self.clients,
            "seed": self.seed,
            "lasted_s": self.lasted_s,
            "log_read_from": self.record,
            "topics": format!("check:{}:*", self.run),
        })
    }
}

/// Each kind that was found, with its number.
pub(super) fn counts(findings: &Findings) -> String {
    let found = Kind::ALL.into_iter().filter(|kind| findings.count(*kind) > 0);
    let told =
        found.map(|kind| format!("{} {}", findings.count(kind), kind.as_str().replace('_', " ")));
    told.collect::<Vec<String>>().join(", ")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { accepted, refused, unknown, logged, delivered, .. } = self.figures;
        let Figures { repeated, cuts, resumes, resets, gaps, .. } = self.figures;
        let Outcome { clients, seed, lasted_s, record, run, .. } = self;
        writeln!(f, "checked    {clients} clients on check:{run}:* for {lasted_s} s, seed {seed}")?;
        writeln!(f, "published  {accepted} accepted, {refused} refused, {unknown} unknown")?;
        writeln!(f, "log        {logged} messages, read from {record}")?;
        writeln!(f, "delivered  {delivered}, and {repeated} again after resumes, as they may")?;
        writeln!(f, "clients    {cuts} cuts, {resumes} resumes, {resets} resets, {gaps} gaps")?;
        let count = |kind| self.findings.count(kind);
        writeln!(
            f,
            "wrong      {} lost, {} doubled, {} reordered, {} phantom, {} at a wrong seq, {} overtaken by a cursor, {} stale, {} skipped, {} set back",
            count(Kind::Lost),
            count(Kind::Doubled),
            count(Kind::Reordered),
            count(Kind::Phantom),
            count(Kind::WrongSeq),
            count(Kind::Overtaken),
            count(Kind::Stale),
            count(Kind::Skipped),
            count(Kind::SetBack),
        )?;
        let ms = |percent| match self.figures.latency.percentile_ms(percent) {
            Some(ms) => format!("{ms:.1} ms"),
            None => "-".to_owned(),
        };
        writeln!(f, "latency    p50 {}, p99 {} from publish to delivery", ms(50), ms(99))?;
        for (kind, text) in self.findings.examples() {
            writeln!(f, "  {}: {text}", kind.as_str().replace('_', " "))?;
        }
        for text in &self.unchecked {
            writeln!(f, "  not checked: {text}")?;
        }
        f.write_str(match (self.is_bad(), self.is_whole()) {
            (true, _) => "VERDICT    bad: what this installation promises does not hold",
            (false, true) => "VERDICT    good: nothing was lost, doubled or reordered",
            (false, false) => "VERDICT    unknown: nothing wrong was seen, but not all was checked",
        })
    }
}
