//! Connection strings as they are met in the wild.

use super::*;

fn nothing(_: &str) -> Option<String> {
    None
}

fn parsed(text: &str) -> Dsn {
    Dsn::parse(text, &nothing).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn variables(list: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    move |name| list.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
}

#[test]
fn what_managed_postgres_hands_out_is_understood() {
    for (text, shown) in [
        // Amazon RDS
        (
            "postgresql://app:p%40ss@db.c9.eu-west-1.rds.amazonaws.com:5432/app?sslmode=verify-full&sslrootcert=/etc/rds.pem",
            "postgres://app:***@db.c9.eu-west-1.rds.amazonaws.com:5432/app?sslmode=verify-full",
        ),
        // Neon
        (
            "postgresql://neondb_owner:npg_x@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
            "postgres://neondb_owner:***@ep-cool-1-pooler.eu-central-1.aws.neon.tech/neondb?sslmode=require",
        ),
        (
            "postgres://u:p@ep-cool-1.neon.tech/db?options=endpoint%3Dep-cool-1&sslmode=require",
            "postgres://u:***@ep-cool-1.neon.tech/db?sslmode=require",
        ),
        // Supabase, as pasted from its Prisma page
        (
            "postgresql://postgres.abcdef:p@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
            "postgres://postgres.abcdef:***@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?sslmode=prefer",
        ),
        // Heroku
        (
            "postgres://uabc:p1234@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d8r8?sslmode=no-verify",
            "postgres://uabc:***@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d8r8?sslmode=require",
        ),
        // DigitalOcean, CloudNativePG, Aiven: a private root
        (
            "postgres://avnadmin:p@pg-1.aivencloud.com:25060/defaultdb?sslmode=require&sslrootcert=ca.pem",
            "postgres://avnadmin:***@pg-1.aivencloud.com:25060/defaultdb?sslmode=verify-ca",
        ),
        // Several hosts, one of them the primary
        (
            "postgres://u@a:5432,b:5433,[::1]/db?target_session_attrs=primary",
            "postgres://u@a:5432,b:5433,[::1]:5432/db?sslmode=prefer",
        ),
        // Unix sockets, in all spellings
        (
            "postgres:///db?host=/run/postgresql",
            "postgres://%2Frun%2Fpostgresql/db?sslmode=disable",
        ),
        ("postgres://u@%2Frun%2Fpg:5433/db", "postgres://u@%2Frun%2Fpg:5433/db?sslmode=disable"),
        ("host=/run/pg dbname=db sslmode=require", "postgres://%2Frun%2Fpg/db?sslmode=disable"),
        // Google Cloud SQL
        (
            "user=u password='a b\\'c' host=/cloudsql/p:r:i dbname=d",
            "postgres://u:***@%2Fcloudsql%2Fp:r:i/d?sslmode=disable",
        ),
        ("postgres://localhost", "postgres://localhost/?sslmode=prefer"),
        ("postgres:///db", "postgres://localhost/db?sslmode=prefer"),
        ("hostaddr=10.0.0.1 dbname=d", "postgres://10.0.0.1/d?sslmode=prefer"),
        ("postgres://u:p@h/d?sslrootcert=system", "postgres://u:***@h/d?sslmode=verify-full"),
    ] {
        let dsn = parsed(text);
        assert_eq!(dsn.redacted(), shown, "{text}");
        assert_eq!(format!("{dsn:?}"), format!("Dsn({shown})"));
    }
}

#[test]
fn passwords_arrive_as_they_were_meant() {
    for (text, password) in [
        ("postgres://u:p%40s%2Fs%25@h/d", "p@s/s%"),
        ("postgres://u:p@ss@h/d", "p@ss"),
        ("postgres://u:p:q@h/d", "p:q"),
        ("postgres://u@h/d?password=a%26b", "a&b"),
        ("user=u password='a \\\\ \\' b'", "a \\ ' b"),
        ("user=u password = x\\ y host=h", "x y"),
    ] {
        let dsn = parsed(text);
        assert_eq!(dsn.config().get_password(), Some(password.as_bytes()), "{text}");
    }
}

#[test]
fn what_is_refused_says_why_and_shows_no_password() {
    for (text, says) in [
        ("mysql://u:hunter2@h/d", "postgres://"),
        ("postgres://u:hunter2@h:port/d", "port"),
        ("postgres://u:hunter2/x@h/d", "%2F"),
        ("postgres://u:hunter2%zz@h/d", "hexadecimal"),
        ("postgres://u:hunter2@h/d?sslmode=maybe", "verify-full"),
        ("postgres://u:hunter2@h/d?sslcrl=x", "sslcrl"),
        ("postgres://u:hunter2@h/d?require_auth=scram-sha-256", "require_auth"),
        ("postgres://u:hunter2@h/d?sslmod=require", "sslmod is not supported"),
        ("postgres://u:hunter2@h/d?target_session_attrs=standby", "writes"),
        ("postgres://u:hunter2@h/d?sslmode=require&sslrootcert=system", "verify-full"),
        ("postgres://u:hunter2@h/d?sslnegotiation=direct", "sslmode=require"),
        ("postgres://u:hunter2@h/d?connect_timeout=soon", "seconds"),
        ("host=a,b,c port=1,2 password=hunter2", "2 ports for 3 hosts"),
        ("host=h password='hunter2", "quote"),
        ("hunter2", "="),
        ("postgres://u:hunter2@[::1/d", "bracket"),
    ] {
        let error = Dsn::parse(text, &nothing).expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn the_variables_of_libpq_fill_what_the_text_leaves_open() {
    let env = variables(&[
        ("PGHOST", "pg.internal"),
        ("PGPORT", "5433"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "secret"),
        ("PGDATABASE", "d"),
        ("PGSSLMODE", "verify-full"),
        ("PGAPPNAME", ""),
    ]);
    let shown = |text: &str| Dsn::parse(text, &env).unwrap().redacted();
    assert!(Dsn::in_environment(&env));
    assert!(!Dsn::in_environment(&nothing));
    assert_eq!(shown(""), "postgres://u:***@pg.internal:5433/d?sslmode=verify-full");
    assert_eq!(
        shown("postgres://me@other:1/x?sslmode=disable"),
        "postgres://me:***@other:1/x?sslmode=disable"
    );
    assert_eq!(shown("dbname=x ssl=false"), "postgres://u:***@pg.internal:5433/x?sslmode=disable");
}

#[test]
fn a_dead_peer_is_noticed_unless_the_text_says_otherwise() {
    let config = parsed("postgres://h/d").config().clone();
    assert!(config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(10));
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(5)));
    assert_eq!(config.get_keepalives_retries(), Some(3));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(15)));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(5)));
    let text = "postgres://h/d?keepalives_idle=60&keepalives_count=9&tcp_user_timeout=2500\
                &connect_timeout=30&application_name=mine";
    let config = parsed(text).named("tidings/a").config().clone();
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(60));
    assert_eq!(config.get_keepalives_retries(), Some(9));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(2_500)));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(30)));
    assert_eq!(config.get_application_name(), Some("mine"));
    let named = parsed("postgres://h/d").named("tidings/a");
    assert_eq!(named.config().get_application_name(), Some("tidings/a"));
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_wanted() {
    let attrs = |text: &str| parsed(text).config().get_target_session_attrs();
    assert_eq!(attrs("postgres://a,b/d"), TargetSessionAttrs::ReadWrite);
    assert_eq!(attrs("postgres://a,b/d?target_session_attrs=any"), TargetSessionAttrs::Any);
    assert_eq!(attrs("postgres://a/d?target_session_attrs=primary"), TargetSessionAttrs::ReadWrite);
    assert_eq!(attrs("postgres://a/d"), TargetSessionAttrs::Any);
}

#[test]
fn tls_is_made_without_a_default_provider_of_the_process() {
    for (mode, tls) in [("disable", false), ("prefer", true), ("require", true)] {
        let dsn = parsed(&format!("postgres://h/d?sslmode={mode}"));
        assert_eq!(dsn.tls().unwrap().is_some(), tls, "{mode}");
    }
    let direct = parsed("postgres://h/d?sslmode=require&sslnegotiation=direct").tls().unwrap();
    assert_eq!(direct.unwrap().alpn_protocols, [b"postgresql".to_vec()]);
    let missing = parsed("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem");
    assert!(matches!(missing.tls(), Err(DsnError::File { key: "sslrootcert", .. })));
    let half = parsed("postgres://h/d?sslmode=require&sslcert=a.pem");
    assert!(matches!(half.tls(), Err(DsnError::Value { .. })));
}

#[test]
fn what_other_clients_put_there_is_left_out_and_told() {
    let dsn = parsed("postgres://h/d?pgbouncer=true&schema=public");
    assert_eq!(dsn.ignored(), ["pgbouncer", "schema"]);
}

#[test]
fn what_would_lead_elsewhere_or_weaken_something_is_refused() {
    let none = |_: &str| None;
    for (parameter, says) in [
        ("service=prod", "service names a file"),
        ("passfile=/x", "passfile names a file"),
        ("gssencmode=require", "gssencmode must be disable or prefer"),
        ("sslcertmode=require", "sslcertmode must be disable or allow"),
    ] {
        let said = Dsn::parse(&format!("postgres://h/d?{parameter}"), &none).unwrap_err();
        assert!(said.to_string().contains(says), "{said}");
    }
    parsed("postgres://h/d?gssencmode=prefer&sslcertmode=allow");
}
