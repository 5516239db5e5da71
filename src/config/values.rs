//! From text to values, one fault a setting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::catalogue::{Kind, SETTINGS, Secrecy, Unit, bytes_of, setting_of, whole_of};
use super::error::{Fault, Source};
use super::sources::{File, Flags, Given, fault, find};
use super::{Effective, Setting};

/// The settings as text, and the faults found so far.
pub(super) struct Values {
    given: BTreeMap<&'static str, Given>,
    pub(super) faults: Vec<Fault>,
}

impl Values {
    pub(super) fn collect(
        flags: &Flags,
        env: &dyn Fn(&str) -> Option<String>,
        toml: Option<&str>,
    ) -> Values {
        let mut faults = Vec::new();
        let file = toml.map_or_else(File::default, |text| File::parse(text, &mut faults));
        let mut given = BTreeMap::new();
        for setting in SETTINGS {
            if let Some(found) = find(setting, flags, env, &file, &mut faults) {
                given.insert(setting.key, found);
            }
        }
        Values { given, faults }
    }

    /// Notes a fault of that setting, with the text and the source it has.
    pub(super) fn refuse(&mut self, key: &'static str, why: impl Into<String>) {
        let setting = setting_of(key).expect("settings are read by the keys of the catalogue");
        let unset = Given { text: String::new(), source: Source::Default };
        let given = self.given.get(key).unwrap_or(&unset);
        self.faults.push(fault(setting, given, why.into()));
    }

    fn refuse_kind(&mut self, key: &'static str) {
        let setting = setting_of(key).expect("settings are read by the keys of the catalogue");
        self.refuse(key, format!("must be {}", setting.kind.allowed()));
    }

    /// Text that is set and not empty.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        debug_assert!(setting_of(key).is_some(), "{key} is not in the catalogue");
        let given = self.given.get(key)?;
        (!given.text.trim().is_empty()).then(|| given.text.trim().to_owned())
    }

    pub(super) fn list(&self, key: &'static str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        // A file that holds them has one a line.
        let parts = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    pub(super) fn switch(&mut self, key: &'static str) -> bool {
        match self.text(key).as_deref() {
            Some("true" | "1" | "yes" | "on") => true,
            None | Some("false" | "0" | "no" | "off") => false,
            Some(_) => {
                self.refuse_kind(key);
                false
            }
        }
    }

    /// One of the words of the catalogue.
    pub(super) fn word(&mut self, key: &'static str) -> Option<&'static str> {
        let text = self.text(key)?;
        let Some(Kind::OneOf(words)) = setting_of(key).map(|setting| setting.kind) else {
            unreachable!("{key} is one of several words")
        };
        let word = words.iter().find(|word| word.eq_ignore_ascii_case(&text)).copied();
        if word.is_none() {
            self.refuse_kind(key);
        }
        word
    }

    /// Text that `parse` understands, or a fault with the rule of the catalogue.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = parse(&self.text(key)?);
        if value.is_none() {
            self.refuse_kind(key);
        }
        value
    }

    pub(super) fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        // `localhost:8080` is what people write, and what they mean needs no resolver.
        self.parsed(key, |text| text.replacen("localhost:", "127.0.0.1:", 1).parse().ok())
    }

    pub(super) fn count(&mut self, key: &'static str) -> usize {
        let number = self.whole(key).unwrap_or(0);
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Duration {
        let number = self.whole(key).unwrap_or(0);
        match setting_of(key).map(|setting| setting.kind) {
            Some(Kind::Whole { unit: Unit::Millis, .. }) => Duration::from_millis(number),
            _ => Duration::from_secs(number),
        }
    }

    /// A number in the range of the catalogue; `None` when unset or refused.
    pub(super) fn whole(&mut self, key: &'static str) -> Option<u64> {
        let Some(Kind::Whole { min, max, unit }) = setting_of(key).map(|setting| setting.kind)
        else {
            unreachable!("{key} is a number")
        };
        self.parsed(key, |text| {
            let number = if unit == Unit::Bytes { bytes_of(text) } else { whole_of(text) };
            number.filter(|number| (min..=max).contains(number))
        })
    }

    /// Every setting as a line of a settings file, with its source; secrets are not shown.
    /// What is in force, setting by setting, without secrets.
    pub(super) fn effective(&self, redact: impl Fn(&str) -> Option<String>) -> Vec<Effective> {
        let one = |setting: &'static Setting| {
            let given = self.given.get(setting.key)?;
            let value = match (setting.secrecy, redact(setting.key)) {
                (Secrecy::Open, _) => Some(given.text.clone()),
                (Secrecy::Password, Some(redacted)) => Some(redacted),
                (Secrecy::Password | Secrecy::Secret, _) => None,
            };
            Some(Effective { setting, value, source: given.source.to_string() })
        };
        SETTINGS.iter().filter_map(one).collect()
    }

    pub(super) fn shown(&self, redact: impl Fn(&str) -> Option<String>) -> String {
        let mut page = String::new();
        for setting in SETTINGS {
            let Some(Given { text, source }) = self.given.get(setting.key) else { continue };
            let line = match (setting.secrecy, redact(setting.key)) {
                (Secrecy::Open, _) => format!("{} = {text:?}", setting.key),
                (Secrecy::Password, Some(redacted)) => format!("{} = {redacted:?}", setting.key),
                (Secrecy::Password | Secrecy::Secret, _) => format!("{} = \"***\"", setting.key),
            };
            page.push_str(&format!("{line}  # {source}\n"));
        }
        page
    }
}
