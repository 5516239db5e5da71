//! `docs/settings.md`, written from the catalogue.

use super::catalogue::{Kind, SETTINGS, Secrecy, Setting, Unit};
use super::sources::CONFIG_ENV;

/// The page as it stands in the repository; a test compares them.
pub fn settings_markdown() -> String {
    let mut page = format!(
        "# Settings

<!-- Written from src/config/catalogue.rs by `UPDATE_DOCS=1 cargo test --test pages`. -->

Every setting is a flag, an environment variable and a key of an optional TOML file, in that order of precedence.
The file is named by `--config FILE` or `{CONFIG_ENV}`; a key in it that is not in this list is refused.
An empty variable counts as not set.
Sizes are bytes, or written `64 KiB`, `8 MiB`, `1 GiB`.
A setting marked *secret* is never shown, and can also be given as a file that holds it: flag, variable and key with `-file`, `_FILE` and `_file` at the end (`TIDINGS_JWT_SECRET_FILE`).
`tidings check-config` shows what is in force, and where each value came from.
"
    );
    let mut part = "";
    for setting in SETTINGS {
        if setting.part != part {
            part = setting.part;
            page.push_str(&format!("\n## {part}\n"));
        }
        page.push_str(&entry(setting));
    }
    page
}

fn entry(setting: &Setting) -> String {
    let key = setting.key;
    // One sentence a line.
    let help = setting.help.replace(". ", ".\n");
    let secret = match setting.secrecy {
        Secrecy::Open => "",
        Secrecy::Password => ", its password *secret*",
        Secrecy::Secret => ", *secret*",
    };
    let unset = "not set".to_owned();
    let default = setting.default.map_or(unset, |text| format!("`{text}`{}", unit(setting.kind)));
    format!(
        "\n### `{key}`\n`--{}` · `{}`{secret}\n\n{help}\n\n- Default: {default}\n- Allowed: {}\n",
        setting.flag(),
        setting.env(),
        setting.kind.allowed(),
    )
}

fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::Whole { unit: Unit::Seconds, .. } => " seconds",
        Kind::Whole { unit: Unit::Millis, .. } => " milliseconds",
        _ => "",
    }
}
