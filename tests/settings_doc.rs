//! `docs/settings.md` says what the catalogue says.

use std::path::Path;

#[test]
fn the_page_of_settings_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = tidings::config::settings_markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/settings.md can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/settings.md is out of date: run this test with UPDATE_DOCS=1");
}
