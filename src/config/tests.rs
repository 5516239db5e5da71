//! Settings from flags, environment and file: what is read, what is refused, what is shown.

use std::collections::{BTreeSet, HashMap};

use super::*;

fn env(list: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let map: HashMap<String, String> =
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| map.get(name).cloned()
}

fn resolve(variables: &[(&str, &str)], toml: &str) -> Result<Config, ConfigError> {
    Config::resolve(&Flags::new(), &env(variables), Some(toml))
}

fn refused(variables: &[(&str, &str)], toml: &str) -> String {
    resolve(variables, toml).expect_err("these settings are wrong").to_string()
}

#[test]
fn without_any_setting_everything_has_its_default() {
    let config = resolve(&[("HOSTNAME", "pod 7")], "").unwrap();
    assert_eq!(config.replica.as_str(), "pod-7");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.allowed_origins, Origins::Same);
    assert_eq!(config.server.drain, Duration::from_secs(20));
    assert_eq!(config.log.tick, Duration::from_millis(1_000));
    assert_eq!(config.limits.data_bytes_max, 262_144);
    assert_eq!(config.limits.frame_bytes_max, 262_144 + 65_536);
    assert_eq!(config.hub.session_queue_bytes_max, 1 << 20);
    assert_eq!(config.feed.page_bytes_max, 131_072);
    assert!(config.postgres.database.is_none() && config.auth.is_empty() && !config.dev);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let file = "drain_s = 3\nlanes = 3\nring_bytes_max = \"8 MiB\"\n";
    let variables = env(&[("TIDINGS_DRAIN_S", "2"), ("TIDINGS_LANES", "")]);
    let flags = Flags::new().with("drain_s", "1");
    let config = Config::resolve(&flags, &variables, Some(file)).unwrap();
    assert_eq!(config.server.drain, Duration::from_secs(1));
    let config = Config::resolve(&Flags::new(), &variables, Some(file)).unwrap();
    assert_eq!(config.server.drain, Duration::from_secs(2));
    assert_eq!(config.publish.lanes, 3, "an empty variable is not set");
    assert_eq!(config.log.ring_bytes_max, 8 << 20);
    for line in
        ["drain_s = \"2\"  # TIDINGS_DRAIN_S", "lanes = \"3\"  # lanes in the settings file"]
    {
        assert!(config.shown().contains(line), "{line} is missing in\n{}", config.shown());
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_source_and_what_is_allowed() {
    let said = refused(
        &[("TIDINGS_DRAIN_S", "abc"), ("TIDINGS_LISTEN", "8080"), ("TIDINGS_LANES", "9")],
        "tick_ms = 50\nlistn = \"x\"\nlog_format = \"xml\"\npulse_s = -1\n",
    );
    for line in [
        "drain_s (TIDINGS_DRAIN_S) is \"abc\", but must be a whole number of seconds from 0 to 3600",
        "listen (TIDINGS_LISTEN) is \"8080\", but must be an address and a port such as",
        "lanes (TIDINGS_LANES) is \"9\", but must be a whole number from 1 to 8",
        "tick_ms (tick_ms in the settings file) is \"50\", but",
        "listn is no setting: is listen meant?",
        "must be one of auto, human, json",
        "pulse_s (pulse_s in the settings file) is \"-1\"",
    ] {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = std::env::temp_dir().join(format!("tidings-secret-{}", std::process::id()));
    std::fs::write(&file, "hunter2-hunter2-hunter2-hunter2-\n").unwrap();
    let path = file.display().to_string();
    let config = resolve(
        &[
            ("DATABASE_URL", "postgres://u:hunter2@h/d"),
            ("TIDINGS_JWT_SECRET_FILE", &path),
            ("TIDINGS_API_KEYS", "hunter2-hunter2-a, hunter2-hunter2-b"),
        ],
        "",
    )
    .unwrap();
    let secret = Secret::new("hunter2-hunter2-hunter2-hunter2-");
    assert_eq!(config.auth.keys, Some(Keys::Secret(secret)), "the file's content is trimmed");
    assert_eq!(config.auth.api_keys.len(), 2);
    for text in [config.shown().to_owned(), format!("{config:?}")] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("postgres://u:***@h/d?sslmode=prefer"), "{text}");
    }
    let said = refused(
        &[
            ("DATABASE_URL", "postgres://u:hunter2@h:x/d"),
            ("TIDINGS_API_KEYS", "hunter2"),
            ("TIDINGS_JWT_SECRET", "hunter2"),
            ("TIDINGS_JWT_SECRET_FILE", &path),
        ],
        "listen_database_url = \"hunter2",
    );
    assert!(!said.contains("hunter2"), "{said}");
    assert!(said.contains("key number 1 is shorter than 16 characters"), "{said}");
    assert!(said.contains("TIDINGS_JWT_SECRET_FILE names a file for it as well"), "{said}");
    assert!(said.contains("in line 1"), "{said}");
    std::fs::remove_file(&file).unwrap();
    let said = refused(&[("TIDINGS_API_KEYS_FILE", &path)], "");
    assert!(said.contains("TIDINGS_API_KEYS_FILE") && said.contains("cannot be used"), "{said}");
}

#[test]
fn dev_listens_on_loopback_only() {
    for address in ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.0.0.9:1"] {
        assert!(resolve(&[("TIDINGS_DEV", "1"), ("TIDINGS_LISTEN", address)], "").unwrap().dev);
    }
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        for name in ["TIDINGS_LISTEN", "TIDINGS_OPS_LISTEN"] {
            let said = refused(&[("TIDINGS_DEV", "true"), (name, address)], "");
            assert!(said.contains("listens on loopback only"), "{said}");
        }
        assert!(resolve(&[("TIDINGS_LISTEN", address)], "").is_ok());
    }
}

#[test]
fn the_algorithm_of_tokens_follows_their_keys_and_never_mixes_them() {
    let algorithm = |list: &[(&str, &str)]| resolve(list, "").map(|config| config.auth.algorithm);
    let secret = ("TIDINGS_JWT_SECRET", "0123456789abcdef0123456789abcdef");
    let pem = ("TIDINGS_JWT_PUBLIC_KEY_FILE", "key.pem");
    let jwks = ("TIDINGS_JWKS_URL", "https://id.example.com/keys");
    let named = |name| ("TIDINGS_JWT_ALGORITHM", name);
    for (list, expected) in [
        (vec![secret], Ok(Algorithm::Hs256)),
        (vec![pem], Ok(Algorithm::Rs256)),
        (vec![jwks], Ok(Algorithm::Rs256)),
        (vec![jwks, named("es256")], Ok(Algorithm::Es256)),
        (vec![pem, named("EdDSA")], Ok(Algorithm::EdDsa)),
        (vec![pem, named("HS256")], Err("must be RS256, ES256 or EdDSA")),
        (vec![secret, named("RS256")], Err("must be HS256 with jwt_secret")),
        (vec![secret, named("none")], Err("must be one of HS256")),
        (vec![secret, jwks], Err("only one of")),
        (vec![("TIDINGS_JWKS_URL", "file:///keys")], Err("http:// or https:// URL")),
        (vec![("TIDINGS_JWKS_URL", "https://a:b@h/keys")], Err("without a user")),
        (vec![("TIDINGS_JWT_SECRET", "fifteen--bytes-")], Err("must have 16 bytes")),
    ] {
        match (algorithm(&list), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{list:?}"),
            (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
            (found, expected) => panic!("{list:?}: {found:?}, not {expected:?}"),
        }
    }
    let warnings = |list: &[(&str, &str)]| resolve(list, "").unwrap().warnings.join("; ");
    let guessed = |bytes| format!("jwt_secret has {bytes} bytes: below 32 it can be guessed");
    assert_eq!(warnings(&[("TIDINGS_JWT_SECRET", "sixteen--bytes--")]), guessed(16));
    assert_eq!(warnings(&[("TIDINGS_JWT_SECRET", "short"), ("TIDINGS_DEV", "true")]), guessed(5));
    let audience = ("TIDINGS_JWT_AUDIENCE", "us");
    assert!(warnings(&[jwks]).contains("jwt_audience is not set"));
    assert_eq!(warnings(&[jwks, audience]), "");
    for (url, told) in [("http://id.example.com/", true), ("http://127.0.0.1/", false)] {
        let said = warnings(&[("TIDINGS_JWKS_URL", url), audience]);
        assert_eq!(said.contains("is not https"), told, "{url}: {said}");
    }
}

#[test]
fn keys_may_stand_one_a_line_and_must_fit_a_header() {
    let keys = |text: &str| resolve(&[("TIDINGS_API_KEYS", text)], "");
    let (one, two) = ("a-key-of-16-chars", "b-key-of-16-chars");
    let found = keys(&format!("{one}\n{two}\n")).unwrap().auth.api_keys;
    assert_eq!(found.iter().map(Secret::expose).collect::<Vec<_>>(), [one, two]);
    for unfit in ["a\tkey-of-16-chars", "ein-schlüssel-mit-ü"] {
        let said = keys(&format!("{one},{unfit}")).unwrap_err().to_string();
        assert!(said.contains("key number 2 has characters"), "{said}");
        assert!(!said.contains(unfit), "{said}");
    }
}

#[test]
fn origins_are_compared_as_browsers_send_them() {
    let origins = |text| resolve(&[("TIDINGS_ALLOWED_ORIGINS", text)], "");
    let listed = Origins::Listed(vec!["https://a.example".into(), "http://localhost:3000".into()]);
    let found = origins("https://A.example/, http://localhost:3000").unwrap();
    assert_eq!(found.server.allowed_origins, listed);
    assert_eq!(origins("*").unwrap().server.allowed_origins, Origins::Any);
    for bad in ["a.example", "https://a.example/path", "https://*.example,ftp://a"] {
        assert!(origins(bad).is_err(), "{bad}");
    }
}

#[test]
fn bounds_that_contradict_one_another_are_refused() {
    for (toml, says) in [
        (
            "data_bytes_max = \"1 MiB\"",
            "session_queue_bytes_max (default) is \"1 MiB\", but must be at least twice",
        ),
        ("frame_bytes_max = 1024", "must be at least data_bytes_max, which is 262144"),
        ("replay_readers_max = 8", "must be below pool_connections_max (8)"),
        ("listen_database_url = \"postgres://h/d\"", "needs database_url"),
        ("drain_s = 1\naccept_grace_s = 2", "must be shorter than drain_s"),
        ("drain_s = 2\naccept_grace_s = 2", "must be shorter than drain_s"),
        ("intake_bytes_max = \"2 MiB\"\nbatch_bytes_max = \"4 MiB\"", "at least batch_bytes_max"),
        ("intake_bytes_max = \"4 MiB\"", "at least body_bytes_max"),
        ("intake_messages_max = 999", "at least batch_messages_max"),
        ("connections_max = 20000", "must be above sessions_max"),
    ] {
        let said = refused(&[], toml);
        assert!(said.contains(says), "{toml}: {said}");
    }
}

#[test]
fn the_database_is_found_by_url_or_by_the_variables_of_libpq() {
    let shown = |list: &[(&str, &str)]| {
        let postgres = resolve(list, "replica = \"r1\"").unwrap().postgres;
        let name = postgres
            .database
            .as_ref()
            .and_then(|dsn| dsn.config().get_application_name().map(str::to_owned));
        (
            name,
            postgres.database.map(|d| d.redacted()),
            postgres.listen_database.map(|d| d.redacted()),
        )
    };
    let name = Some("tidings/r1".to_owned());
    let own = Some("postgres://h/d?sslmode=prefer".to_owned());
    let by_variables = [("PGHOST", "h"), ("PGDATABASE", "d")];
    assert_eq!(shown(&by_variables), (name.clone(), own.clone(), None));
    let past = Some("postgres://p:6432/d?sslmode=prefer".to_owned());
    let both = [("DATABASE_URL", "postgres://p:6432/d"), ("LISTEN_DATABASE_URL", "postgres://h/d")];
    assert_eq!(shown(&both), (name, past, own));
    assert_eq!(shown(&[("PGUSER", "u")]), (None, None, None));
}

#[test]
fn a_settings_file_may_use_lists_and_no_tables() {
    let config = resolve(&[], "allowed_origins = [\"https://a.example\"]\ndev = true").unwrap();
    assert_eq!(config.server.allowed_origins, Origins::Listed(vec!["https://a.example".into()]));
    assert!(config.dev);
    assert!(refused(&[], "[server]\nlisten = \"x\"").contains("server is no setting"));
    assert!(refused(&[], "drain_s = 1.5").contains("drain_s must be text, a whole number"));
    assert!(refused(&[], "lanes = 1\nlanes = 2").contains("duplicate key"));
}

#[test]
fn the_command_line_knows_every_setting() {
    let command = clap::Command::new("serve").args(args());
    command.clone().debug_assert();
    let line = ["serve", "--dev", "--drain-s", "4", "--jwt-secret-file", "x", "--config", "c.toml"];
    let flags = Flags::from_matches(&command.clone().get_matches_from(line));
    assert_eq!(flags.config_file(), Some("c.toml"));
    let said = Config::resolve(&flags, &env(&[]), None).unwrap_err().to_string();
    assert!(said.contains("jwt_secret (--jwt-secret-file): the file x cannot be used"), "{said}");
    let matches = command.get_matches_from(["serve", "--dev", "--drain-s", "4"]);
    let config = Config::resolve(&Flags::from_matches(&matches), &env(&[]), None).unwrap();
    assert!(config.dev);
    assert_eq!(config.server.drain, Duration::from_secs(4));
}

#[test]
fn every_number_is_read_and_bounded() {
    for setting in SETTINGS {
        let Kind::Whole { min, max, .. } = setting.kind else { continue };
        for beyond in [min.checked_sub(1), max.checked_add(1)].into_iter().flatten() {
            let said = refused(&[(&setting.env(), &beyond.to_string())], "");
            assert!(said.contains(&format!("{} (", setting.key)), "{said}");
        }
    }
}

#[test]
fn the_catalogue_is_sound() {
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    assert_eq!(keys.len(), SETTINGS.len(), "a key is there twice");
    for setting in SETTINGS {
        assert!(setting.help.ends_with('.'), "{}", setting.key);
        assert!(setting.secrecy == Secrecy::Open || setting.default.is_none(), "{}", setting.key);
    }
}
