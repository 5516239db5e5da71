//! What the server says, whatever carries it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::Cursor;

/// Any frame. Fields that it does not have are empty; what is unknown is ignored, as agreed.
#[derive(Debug, Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) cursor: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    topic: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) seq: Option<u64>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    class: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    at: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) count: Option<u64>,
    #[serde(default)]
    pub(super) dropped: Option<u64>,
    #[serde(borrow, default)]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) replica: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) heartbeat_s: Option<u64>,
    #[serde(borrow, default, rename = "ref")]
    pub(super) reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) detail: Option<Cow<'a, str>>,
}

/// A message, with the frame that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    /// `None` for a signal.
    pub seq: Option<u64>,
    /// `None` for a frame that has overtaken others, from which nobody may resume.
    pub cursor: Option<Cursor>,
    pub kind: Option<String>,
    pub class: String,
    pub key: Option<String>,
    pub at: String,
    /// Byte for byte as it was published.
    pub data: String,
    /// Byte for byte as it was received.
    pub frame: String,
}

impl Incoming<'_> {
    pub(super) fn read(text: &str) -> Option<Incoming<'_>> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn cursor(&self) -> Option<Cursor> {
        Cursor::parse(self.cursor.as_deref()?).ok()
    }

    pub(super) fn topic(&self) -> String {
        owned(self.topic.as_ref()).unwrap_or_default()
    }

    pub(super) fn received(&self, frame: &str) -> Received {
        Received {
            topic: self.topic(),
            seq: self.seq,
            cursor: self.cursor(),
            kind: owned(self.kind.as_ref()),
            class: owned(self.class.as_ref()).unwrap_or_default(),
            key: owned(self.key.as_ref()),
            at: owned(self.at.as_ref()).unwrap_or_default(),
            data: self.data.map_or("null", RawValue::get).to_owned(),
            frame: frame.to_owned(),
        }
    }
}

pub(super) fn owned(text: Option<&Cow<'_, str>>) -> Option<String> {
    text.map(|text| text.clone().into_owned())
}
