//! Where an installation answers: `http://host:port`, with a path if a proxy put it under one.

use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Without a slash at the end.
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an address is http://host:port or https://host")]
pub struct AddressError;

impl Address {
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let text = text.trim().trim_end_matches('/');
        let uri: http::Uri = text.parse().map_err(|_| AddressError)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        // A name and a password there would be shown with every diagnostic.
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let whole = uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none();
        let fits = known && plain && whole && !text.contains('#');
        fits.then(|| Address { text: text.to_owned() }).ok_or(AddressError)
    }

    pub(super) fn http(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// `https` becomes `wss`, `http` becomes `ws`.
    pub(super) fn websocket(&self, path: &str) -> String {
        let rest = self.text.get("http".len()..).unwrap_or_default();
        format!("ws{rest}{path}")
    }

    /// As a request line has it.
    pub(super) fn path(&self, path: &str) -> String {
        let (_, rest) = self.text.split_once("://").unwrap_or_default();
        let below = rest.find('/').map_or("", |slash| &rest[slash..]);
        format!("{below}{path}")
    }

    /// As the header `Host` has it.
    pub(super) fn authority(&self) -> &str {
        let (_, rest) = self.text.split_once("://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// Whom to connect to.
    pub(super) fn host_and_port(&self) -> (&str, u16) {
        let authority = self.authority();
        let default = if self.is_secure() { 443 } else { 80 };
        // In `[::1]` colons are a part of the host.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
            _ => (authority, default),
        };
        (host.trim_matches(['[', ']']), port)
    }

    pub(super) fn is_secure(&self) -> bool {
        self.text.get(.."https".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_and_a_host() {
        for (text, http, websocket) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", "ws://127.0.0.1:8080/x"),
            ("https://a.example/", "https://a.example/x", "wss://a.example/x"),
            ("http://[::1]:80/tidings/", "http://[::1]:80/tidings/x", "ws://[::1]:80/tidings/x"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.http("/x"), http);
            assert_eq!(address.websocket("/x"), websocket);
            assert_eq!(address.is_secure(), text.starts_with("https"));
        }
    }

    #[test]
    fn a_request_of_our_own_goes_where_others_go() {
        for (text, host, port, authority, path) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080", "/x"),
            ("https://a.example", "a.example", 443, "a.example", "/x"),
            ("http://[::1]", "::1", 80, "[::1]", "/x"),
            ("http://[::1]:90/tidings/", "::1", 90, "[::1]:90", "/tidings/x"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.host_and_port(), (host, port));
            assert_eq!((address.authority(), address.path("/x").as_str()), (authority, path));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "a",
            "localhost:8080",
            "127.0.0.1:8080",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a?x=1",
            "http://a#b",
            "http://a b",
        ] {
            assert_eq!(Address::parse(text), Err(AddressError), "{text}");
        }
    }
}
