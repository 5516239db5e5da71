//! Connection strings. The first line is the text; the others are variables of the environment,
//! `NAME=value`.

use tidings::dsn::Dsn;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// What nobody must see, wherever a password may stand.
const PASSWORD: &str = "Sesame9Open";

pub fn check(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let (text, variables) = input.split_once('\n').unwrap_or((input, ""));
    let env = |name: &str| -> Option<String> {
        let mut lines = variables.lines().filter_map(|line| line.split_once('='));
        lines.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
    };
    let _ = Dsn::in_environment(&env);
    let dsn = match Dsn::parse(text, &env) {
        Ok(dsn) => dsn,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let config = dsn.config();
    hides_its_password(&dsn);
    assert!(dsn.clone().named("tidings").config().get_application_name().is_some());
    // The other spelling of the same says the same.
    let pairs = pairs(config);
    let again = Dsn::parse(&pairs, &|_| None).unwrap_or_else(|error| panic!("{pairs}: {error}"));
    let said = |config: &Config| {
        let text = |text: Option<&str>| text.map(str::to_owned);
        (
            config.get_hosts().to_vec(),
            config.get_hostaddrs().to_vec(),
            config.get_ports().to_vec(),
            text(config.get_user()),
            config.get_password().map(<[u8]>::to_vec),
            text(config.get_dbname()),
            text(config.get_options()),
        )
    };
    assert_eq!(said(again.config()), said(config), "{pairs}");
}

fn hides_its_password(dsn: &Dsn) {
    let config = dsn.config();
    let password = config.get_password().map(String::from_utf8_lossy).unwrap_or_default();
    let hosts = format!("{:?}", config.get_hosts());
    let elsewhere = [config.get_user(), config.get_dbname(), Some(hosts.as_str())];
    let open = elsewhere.into_iter().flatten().any(|text| text.contains(PASSWORD));
    if password.contains(PASSWORD) && !open {
        for shown in [dsn.redacted(), format!("{dsn:?}"), dsn.to_string()] {
            assert!(!shown.contains(PASSWORD), "{shown}");
        }
    }
}

fn pairs(config: &Config) -> String {
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: &str| {
        if !value.is_empty() {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            pairs.push(format!("{key}='{value}'"));
        }
    };
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    push("host", &hosts.collect::<Vec<_>>().join(","));
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    push("hostaddr", &addresses.collect::<Vec<_>>().join(","));
    let ports = config.get_ports().iter().map(ToString::to_string);
    push("port", &ports.collect::<Vec<_>>().join(","));
    push("user", config.get_user().unwrap_or_default());
    push("password", &config.get_password().map(String::from_utf8_lossy).unwrap_or_default());
    push("dbname", config.get_dbname().unwrap_or_default());
    push("options", config.get_options().unwrap_or_default());
    pairs.join(" ")
}
