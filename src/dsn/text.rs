//! The two spellings of a connection string, and the variables that complete it.

use super::DsnError;

/// Parameters under libpq's names, the last one of a name winning, as in libpq.
pub(super) struct Params(Vec<(String, String)>);

/// libpq's variables, each for the parameter that it stands in for.
const VARIABLES: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("dbname", "PGDATABASE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

impl Params {
    pub(super) fn parse(text: &str) -> Result<Params, DsnError> {
        let text = text.trim();
        let rest = ["postgres://", "postgresql://"].iter().find_map(|p| text.strip_prefix(p));
        match rest {
            Some(rest) => url(rest),
            // In the value of a pair, such as a password, it may well stand.
            None if text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('=')) => {
                Err(DsnError::Text("it is a URL of something else"))
            }
            None => pairs(text),
        }
    }

    /// Fills from the environment what the text leaves open.
    pub(super) fn complete(&mut self, env: &dyn Fn(&str) -> Option<String>) {
        // A port or address belongs to the host beside it; `PGPORT` is for whoever names no host
        // in a URL or leaves the port open, but `PGHOSTADDR` would send the URL elsewhere.
        let named = self.has("host") || self.has("hostaddr");
        for (key, variable) in VARIABLES {
            let elsewhere = named && matches!(*key, "host" | "hostaddr");
            if elsewhere || self.has(key) || (*key == "sslmode" && self.has("ssl")) {
                continue;
            }
            if let Some(value) = env(variable).filter(|value| !value.is_empty()) {
                self.0.push(((*key).to_owned(), value));
            }
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(own, _)| own == key)?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn into_rest(self) -> Vec<(String, String)> {
        self.0
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(own, _)| own == key)
    }

    /// An empty value leaves the parameter open, as in libpq.
    fn set(&mut self, key: &str, value: String) {
        self.0.retain(|(own, _)| own != key);
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

/// `[user[:password]@][host[:port][,…]][/dbname][?key=value&…]`
fn url(rest: &str) -> Result<Params, DsnError> {
    let mut params = Params(Vec::new());
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = before.split_once('/').unwrap_or((before, ""));
    // The last @, because passwords that hold one unencoded are met in the wild.
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            params.set("user", decoded(user)?);
            params.set("password", decoded(password)?);
            hosts
        }
        None => authority,
    };
    set_hosts(&mut params, hosts)?;
    params.set("dbname", decoded(dbname)?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let missing = DsnError::Text("each parameter after the ? needs a =");
        let (key, value) = pair.split_once('=').ok_or(missing)?;
        params.set(&decoded(key)?, decoded(value)?);
    }
    Ok(params)
}

fn set_hosts(params: &mut Params, text: &str) -> Result<(), DsnError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for one in text.split(',') {
        let (host, port) = if let Some(bracketed) = one.strip_prefix('[') {
            let open = DsnError::Text("an IPv6 address needs its closing bracket");
            let (host, after) = bracketed.split_once(']').ok_or(open)?;
            (host.to_owned(), after.strip_prefix(':').unwrap_or(after))
        } else {
            let (host, port) = one.split_once(':').unwrap_or((one, ""));
            (decoded(host)?, port)
        };
        hosts.push(host);
        ports.push(port);
    }
    params.set("host", hosts.join(","));
    // No port at all is left open for `PGPORT`; a comma keeps the places of several.
    let open = ports.iter().all(|port| port.is_empty());
    params.set("port", if open { String::new() } else { ports.join(",") });
    Ok(())
}

fn decoded(text: &str) -> Result<String, DsnError> {
    const BAD: DsnError = DsnError::Text("a % must be followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(BAD) };
        rest = tail;
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(BAD) };
        bytes.push(high * 16 + low);
    }
    let text = String::from_utf8(bytes).map_err(|_| DsnError::Text("it must be UTF-8"))?;
    if text.contains('\0') { Err(DsnError::Text("it holds a zero byte")) } else { Ok(text) }
}

/// `key=value key = 'quoted value'`, with `\` before a quote or a backslash.
fn pairs(text: &str) -> Result<Params, DsnError> {
    let mut params = Params(Vec::new());
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(params);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(DsnError::Text("a key has no = after it"));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(DsnError::Text("a quote is not closed")),
                None => break,
            }
        }
        params.set(&key, value);
    }
}
