//! The console: files that are part of the binary, so that every replica serves its own version.
//!
//! Nothing is loaded from elsewhere, and nothing that is not in a file of ours is run.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::Api;
use super::error::Problem;

#[derive(RustEmbed)]
#[folder = "console/"]
struct Files;

/// `connect-src` covers WebSockets of the same origin too.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page asks of who comes stands in it, so that it need not ask first and be refused.
const MODE: &str = "data-mode=\"token\"";
const MODE_DEV: &str = "data-mode=\"dev\"";

pub async fn index(State(api): State<Api>, headers: HeaderMap) -> Response {
    let Some(mut file) = Files::get("index.html") else {
        return Problem::nothing_here().into_response();
    };
    let mut tag = tag(&file);
    if api.inner.auth.is_dev() {
        file.data =
            String::from_utf8_lossy(&file.data).replacen(MODE, MODE_DEV, 1).into_bytes().into();
        tag.insert_str(1, "dev-");
    }
    respond(file, &tag, "text/html; charset=utf-8", &headers)
}

pub async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    answer(&path, &headers)
}

fn answer(path: &str, headers: &HeaderMap) -> Response {
    let (Some(file), Some(kind)) = (Files::get(path), kind(path)) else {
        return Problem::nothing_here().into_response();
    };
    let tag = tag(&file);
    respond(file, &tag, kind, headers)
}

fn respond(file: EmbeddedFile, tag: &str, kind: &'static str, headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => axum::body::Body::from(file.data.into_owned()).into_response(),
    };
    let fixed = [
        (header::CONTENT_TYPE, kind),
        // Asked for each time: behind a balancer the next replica may be of another version.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let own = response.headers_mut();
    for (name, value) in fixed {
        own.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(tag) {
        own.insert(header::ETAG, tag);
    }
    response
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    hash.iter().take(12).fold("\"".to_owned(), |tag, byte| format!("{tag}{byte:02x}")) + "\""
}

/// What is served; everything else, notes and licences among it, is not.
fn kind(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_names_is_there() {
        for path in Files::iter().filter(|path| path.ends_with(".html") || path.ends_with(".js")) {
            let file = Files::get(&path).unwrap();
            let text = String::from_utf8(file.data.into_owned()).unwrap();
            for name in text.split('"').filter(|name| name.starts_with("/console/")) {
                let name = name.strip_prefix("/console/").unwrap();
                assert!(Files::get(name).is_some() && kind(name).is_some(), "{path}: {name}");
            }
        }
    }

    #[test]
    fn the_page_says_which_mode_it_is_for() {
        let page = Files::get("index.html").unwrap();
        assert_eq!(String::from_utf8_lossy(&page.data).matches(MODE).count(), 1);
    }

    #[test]
    fn nothing_outside_is_served() {
        for path in
            ["../Cargo.toml", "/etc/passwd", "%2e%2e/Cargo.toml", "", ".", "vendor", "index.html"]
        {
            assert_eq!(answer(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
