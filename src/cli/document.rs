//! `docs/commands.md`, written from the commands themselves.

use clap::{Arg, Command};

use crate::config::SETTINGS;

/// The page as it stands in the repository; a test compares them.
pub fn commands_markdown() -> String {
    let mut page = "# Commands

<!-- Written from src/cli.rs by `UPDATE_DOCS=1 cargo test --test pages`. -->

Every command ends with 0 when all went well, with 1 when something failed, and with 2 when it was given something wrong; `serve` and `demo` end with 130 when they were told twice to end.
What failed is one sentence on standard error that says what to do.
Commands marked *settings* take each of the [settings](settings.md) as well.
"
    .to_owned();
    for command in super::command().get_subcommands() {
        entries(&mut page, "", command);
    }
    page
}

/// A command, or the commands that it is made of.
fn entries(page: &mut String, before: &str, command: &Command) {
    let name = format!("{before}{}", command.get_name());
    if !command.has_subcommands() {
        return page.push_str(&entry(&name, command));
    }
    for inner in command.get_subcommands() {
        entries(page, &format!("{name} "), inner);
    }
}

fn is_setting(arg: &Arg) -> bool {
    let Some(long) = arg.get_long() else { return false };
    let named = |name: &str| SETTINGS.iter().any(|setting| setting.flag() == name);
    named(long) || long.strip_suffix("-file").is_some_and(named) || long == "config"
}

fn entry(name: &str, command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help");
    let (settings, own): (Vec<&Arg>, Vec<&Arg>) = args.partition(|arg| is_setting(arg));
    let mut usage = format!("tidings {name}");
    for arg in own.iter().filter(|arg| arg.is_positional()) {
        usage.push_str(if arg.is_last_set() { " -- " } else { " " });
        usage.push_str(&arg.to_string());
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let marked = if settings.is_empty() { "" } else { " · *settings*" };
    let mut text = format!("\n## {name}\n`{usage}`{marked}\n\n{about}.\n");
    if !own.is_empty() {
        text.push('\n');
    }
    for arg in own {
        let help = arg.get_help().map(|help| help.to_string().replace('\n', " "));
        let default = default(arg).map(|text| format!("; {text} unless given")).unwrap_or_default();
        let env = arg.get_env().map(|name| format!(" or `{}`", name.to_string_lossy()));
        let (env, help) = (env.unwrap_or_default(), help.unwrap_or_default());
        text.push_str(&format!("- `{arg}`{env}: {help}{default}\n"));
    }
    text
}

fn default(arg: &Arg) -> Option<String> {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_default_values().first().filter(|_| takes_value)?;
    Some(format!("`{}`", value.to_string_lossy()))
}
