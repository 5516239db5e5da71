//! The pages that are written from the code say what the code says.

use std::path::Path;

fn compare(file: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/{file} is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn the_page_of_settings_is_the_catalogue() {
    compare("settings.md", &tidings::config::settings_markdown());
}

#[test]
fn the_page_of_commands_is_the_command_line() {
    compare("commands.md", &tidings::cli::commands_markdown());
}
