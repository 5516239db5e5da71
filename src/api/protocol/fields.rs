//! One JSON object, field by field, with all its faults.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::error::{FieldError, Problem};

/// The longest `ref`.
const REFERENCE_BYTES_MAX: usize = 100;

/// How many faults are told: a body of a few megabytes can hold a million of them, and an answer
/// is not larger than what it answers.
const FAULTS_MAX: usize = 50;

/// What is wrong with a document: shape before size before rules.
#[derive(Debug, Default)]
pub struct Faults {
    malformed: Vec<FieldError>,
    too_large: Option<String>,
    invalid: Vec<FieldError>,
}

impl Faults {
    pub fn malformed(&mut self, pointer: &str, detail: impl Into<String>) {
        add(&mut self.malformed, pointer, detail);
    }

    pub fn too_large(&mut self, detail: String) {
        self.too_large.get_or_insert(detail);
    }

    pub fn invalid(&mut self, pointer: &str, detail: impl Into<String>) {
        add(&mut self.invalid, pointer, detail);
    }

    pub fn finish(self) -> Result<(), Problem> {
        if !self.malformed.is_empty() {
            Err(Problem::bad_fields(self.malformed))
        } else if let Some(detail) = self.too_large {
            Err(Problem::too_large(detail))
        } else if !self.invalid.is_empty() {
            Err(Problem::invalid(self.invalid))
        } else {
            Ok(())
        }
    }
}

fn add(faults: &mut Vec<FieldError>, pointer: &str, detail: impl Into<String>) {
    if faults.len() < FAULTS_MAX {
        faults.push(FieldError::new(pointer, detail));
    }
}

/// An object whose fields are taken one by one; what is left over is unknown.
pub struct Fields<'a> {
    raw: BTreeMap<String, &'a RawValue>,
    at: String,
}

impl<'a> Fields<'a> {
    /// `at` is the pointer to this object.
    pub fn read(text: &'a str, at: &str) -> Result<Fields<'a>, Problem> {
        match serde_json::from_str(text) {
            Ok(raw) => Ok(Fields { raw, at: at.to_owned() }),
            Err(error) => Err(Problem::malformed(format!(
                "not a JSON object: line {} column {}",
                error.line(),
                error.column()
            ))),
        }
    }

    pub fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, name.replace('~', "~0").replace('/', "~1"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.raw.contains_key(name)
    }

    /// The text of a field; an explicit null is a value.
    pub fn take_raw(&mut self, name: &str) -> Option<&'a str> {
        self.raw.remove(name).map(RawValue::get)
    }

    /// A field that may be left out; an explicit null is the same as leaving it out.
    pub fn take<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        what: &str,
        faults: &mut Faults,
    ) -> Option<T> {
        let raw = self.raw.remove(name)?;
        match serde_json::from_str::<Option<T>>(raw.get()) {
            Ok(value) => value,
            Err(_) => {
                faults.malformed(&self.pointer(name), format!("must be {what}"));
                None
            }
        }
    }

    pub fn take_required<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        what: &str,
        faults: &mut Faults,
    ) -> Option<T> {
        if !self.has(name) {
            faults.malformed(&self.pointer(name), format!("is missing: {what}"));
            return None;
        }
        let null = self.raw.get(name).is_some_and(|raw| raw.get() == "null");
        if null {
            self.raw.remove(name);
            faults.malformed(&self.pointer(name), format!("must be {what}"));
            return None;
        }
        self.take(name, what, faults)
    }

    /// What the answer repeats: a string or a number, as it was written.
    pub fn take_reference(&mut self, faults: &mut Faults) -> Option<Reference> {
        let raw = self.raw.remove("ref")?;
        let text = raw.get();
        let simple =
            text.starts_with('"') || text.starts_with('-') || text.as_bytes()[0].is_ascii_digit();
        if text == "null" {
            None
        } else if simple && text.len() <= REFERENCE_BYTES_MAX {
            Some(Reference(text.to_owned()))
        } else {
            faults.malformed(
                &self.pointer("ref"),
                "must be a string or a number of at most 100 bytes",
            );
            None
        }
    }

    /// Whatever nobody took is unknown.
    pub fn finish(self, faults: &mut Faults) {
        for name in self.raw.keys() {
            faults.malformed(&self.pointer(name), "unknown field");
        }
    }
}

/// A `ref`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    pub fn as_json(&self) -> &str {
        &self.0
    }
}
