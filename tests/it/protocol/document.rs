//! The examples of the document, with the lines on which they stand.
//!
//! After the kind of a fence come the settings of the replica that it is for, such as
//! `TIDINGS_HEARTBEAT_S=1`; readers of the page do not see them. Examples without any share one.

pub const TEXT: &str = include_str!("../../../docs/protocol.md");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    WebSocket,
    Sse,
}

pub struct Line {
    pub number: usize,
    pub text: String,
}

pub struct Example {
    pub kind: Kind,
    pub settings: Vec<(String, String)>,
    pub lines: Vec<Line>,
}

pub fn examples() -> Vec<Example> {
    let mut examples = Vec::new();
    let mut lines = TEXT.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut words = info.split_whitespace();
        let kind = match words.next() {
            Some("http") => Some(Kind::Http),
            Some("ws") => Some(Kind::WebSocket),
            Some("sse") => Some(Kind::Sse),
            Some("json" | "sql" | "sh") => None,
            other => panic!("docs/protocol.md:{number}: a fence of unknown kind {other:?}"),
        };
        let settings = words.filter_map(|word| word.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let inside = lines.by_ref().take_while(|(line, _)| !line.starts_with("```"));
        let lines: Vec<Line> =
            inside.map(|(text, number)| Line { number, text: text.to_owned() }).collect();
        if let Some(kind) = kind {
            assert!(!lines.is_empty(), "docs/protocol.md:{number}: an empty example");
            examples.push(Example { kind, settings, lines });
        }
    }
    examples
}

/// Where it went otherwise than the document says, and how.
pub struct Failure {
    pub line: usize,
    pub what: String,
}

impl Failure {
    pub fn new(line: &Line, what: impl Into<String>) -> Failure {
        Failure { line: line.number, what: what.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "docs/protocol.md:{}: {}", self.line, self.what)
    }
}
