//! Flags, variables and the settings file, laid over one another.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches};

use super::catalogue::{Kind, SETTINGS, Secrecy, Setting};
use super::error::{Fault, Source, nearest};

/// The variable that names the settings file; the flag is `--config`.
pub const CONFIG_ENV: &str = "TIDINGS_CONFIG";

/// Settings given on the command line, by key (`drain_s`, `jwt_secret_file`).
#[derive(Clone, Debug, Default)]
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    pub fn new() -> Flags {
        Flags::default()
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Flags {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The flags of `args` that were given.
    pub fn from_matches(matches: &ArgMatches) -> Flags {
        let ids = SETTINGS.iter().flat_map(keys).chain(["config".to_owned()]);
        let given = ids.filter_map(|id| {
            let value = matches.try_get_one::<String>(&id).ok().flatten()?.clone();
            Some((id, value))
        });
        Flags(given.collect())
    }

    /// Of `--config`.
    pub fn config_file(&self) -> Option<&str> {
        self.get("config")
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

/// A clap argument for each setting, for the commands that read settings.
/// Clap is not told of variables or defaults: it would print the values of secrets in its help.
pub fn args() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("TOML file with settings [env: {CONFIG_ENV}]"));
    let mut all = vec![config];
    for setting in SETTINGS {
        let default = setting.default.map_or(String::new(), |text| format!(" [default: {text}]"));
        let help = format!("{}{default} [env: {}]", setting.help, setting.env());
        let arg = Arg::new(setting.key)
            .long(setting.flag())
            .action(ArgAction::Set)
            .help_heading(setting.part)
            .help(help);
        all.push(match setting.kind {
            Kind::Switch => arg.num_args(0..=1).default_missing_value("true").require_equals(true),
            _ => arg.value_name("VALUE").allow_hyphen_values(true),
        });
        if setting.has_file() {
            let arg = Arg::new(format!("{}_file", setting.key)).long(setting.flag() + "-file");
            let help = format!("File that holds it [env: {}_FILE]", setting.env());
            all.push(arg.value_name("FILE").help_heading(setting.part).help(help));
        }
    }
    all
}

/// The text of a setting, and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
}

/// The settings file, already taken apart.
#[derive(Default)]
pub(super) struct File(BTreeMap<String, String>);

impl File {
    pub(super) fn parse(text: &str, faults: &mut Vec<Fault>) -> File {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                // Only the message: the snippet that goes with it may show a secret.
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
                let line = before.matches('\n').count() + 1;
                faults.push(Fault::File(format!("{} in line {line}", error.message())));
                return File::default();
            }
        };
        let known: Vec<String> = SETTINGS.iter().flat_map(keys).collect();
        let mut file = File::default();
        for (key, value) in table {
            if !known.contains(&key) {
                let nearest = nearest(&key, SETTINGS.iter().map(|setting| setting.key));
                faults.push(Fault::Unknown { key, nearest });
            } else if let Some(text) = plain(&value) {
                file.0.insert(key, text);
            } else {
                let why = format!("{key} must be text, a whole number, true, false or a list");
                faults.push(Fault::File(why));
            }
        }
        file
    }
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(list) => {
            let parts: Option<Vec<String>> = list.iter().map(plain).collect();
            Some(parts?.join(","))
        }
        _ => None,
    }
}

fn keys(setting: &Setting) -> Vec<String> {
    let mut keys = vec![setting.key.to_owned()];
    if setting.has_file() {
        keys.push(format!("{}_file", setting.key));
    }
    keys
}

/// Looks a setting up in one place, under its name with that suffix.
type Layer<'a> = &'a dyn Fn(&str) -> Option<Given>;

/// Lays flags over variables over the file over the default.
pub(super) fn find(
    setting: &'static Setting,
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    file: &File,
    faults: &mut Vec<Fault>,
) -> Option<Given> {
    let layers: [Layer<'_>; 3] = [
        &|suffix| {
            let text = flags.get(&format!("{}{suffix}", setting.key))?.to_owned();
            let flag = format!("{}{}", setting.flag(), suffix.replace('_', "-"));
            Some(Given { text, source: Source::Flag(flag) })
        },
        &|suffix| {
            let name = format!("{}{}", setting.env(), suffix.to_uppercase());
            // An empty variable is how many tools spell one that is not set.
            let text = env(&name).filter(|text| !text.is_empty())?;
            Some(Given { text, source: Source::Variable(name) })
        },
        &|suffix| {
            let key = format!("{}{suffix}", setting.key);
            Some(Given { text: file.0.get(&key)?.clone(), source: Source::File(key) })
        },
    ];
    for layer in layers {
        let path = if setting.has_file() { layer("_file") } else { None };
        match (layer(""), path) {
            (Some(given), None) => return Some(given),
            (Some(given), Some(path)) => {
                let why = format!("{} names a file for it as well: give one of them", path.source);
                faults.push(fault(setting, &given, why));
                return None;
            }
            (None, Some(path)) => return read(setting, path, faults),
            (None, None) => {}
        }
    }
    let text = setting.default?.to_owned();
    Some(Given { text, source: Source::Default })
}

fn read(setting: &'static Setting, path: Given, faults: &mut Vec<Fault>) -> Option<Given> {
    match std::fs::read_to_string(&path.text) {
        Ok(text) if !text.trim().is_empty() => {
            Some(Given { text: text.trim().to_owned(), source: path.source })
        }
        result => {
            let what = result.err().map_or("it is empty".to_owned(), |error| error.to_string());
            let why = format!("the file {} cannot be used: {what}", path.text);
            faults.push(fault(setting, &path, why));
            None
        }
    }
}

pub(super) fn fault(setting: &'static Setting, given: &Given, why: String) -> Fault {
    let open = setting.secrecy == Secrecy::Open;
    let value = open.then(|| given.text.clone());
    Fault::Value { key: setting.key, source_name: given.source.clone(), value, why }
}
