//! compose.yaml: what it starts would start, and nothing of it is seen from outside the machine.

use std::process::Command;

use serde_json::Value;

use crate::{path, read, settings_are_right, subcommand_exists, yaml};

fn compose() -> Value {
    // The shell's way to name a default is compose's too.
    let mut text = read("compose.yaml");
    while let Some(at) = text.find("${") {
        let end = at + text[at..].find('}').unwrap();
        let default = text[at + 2..end].split_once(":-").expect("a default for each").1.to_owned();
        text.replace_range(at..=end, &default);
    }
    yaml(&text)
}

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().unwrap().iter()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn environment(service: &Value) -> Vec<(String, String)> {
    let settings = service["environment"].as_object().unwrap();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    settings.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[test]
fn nothing_is_reached_from_outside_the_machine() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn replicas_can_be_as_many_as_wanted() {
    let compose = compose();
    let app = &compose["services"]["app"];
    assert!(app["ports"].is_null() && app["container_name"].is_null() && app["hostname"].is_null());
    assert!(app["environment"]["TIDINGS_REPLICA"].is_null(), "each has a name of its own");
    assert_eq!(app["deploy"]["replicas"], 3);
}

#[test]
fn replicas_are_given_settings_and_commands_that_exist() {
    let compose = compose();
    for name in ["app", "migrate"] {
        let service = &compose["services"][name];
        settings_are_right(&environment(service));
        texts(&service["command"]).iter().take(1).for_each(|name| subcommand_exists(name));
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
    }
    let app = &compose["services"]["app"];
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u32>().unwrap();
    let drain = app["environment"]["TIDINGS_DRAIN_S"].as_str().unwrap();
    let grace = app["stop_grace_period"].as_str().unwrap();
    assert!(seconds(grace) >= seconds(drain) + 5, "killed before it has left");
}

/// One migrates as the owner, the others serve as the service; sql/roles.sql has made both.
#[test]
fn each_is_let_in_under_a_role_of_its_own() {
    let compose = compose();
    let services = &compose["services"];
    for (name, role) in [("migrate", "tidings_owner"), ("app", "tidings_service")] {
        let url = services[name]["environment"]["DATABASE_URL"].as_str().unwrap();
        assert!(url.starts_with(&format!("postgres://{role}:")), "{name}: {url}");
        assert!(read("sql/roles.sql").contains(role));
        assert!(read("deploy/compose/passwords.sh").contains(&format!("alter role {role} ")));
    }
    let needs = |name: &str, other: &str| services[name]["depends_on"][other]["condition"].clone();
    assert_eq!(needs("migrate", "postgres"), "service_healthy");
    assert_eq!(needs("app", "migrate"), "service_completed_successfully");
    assert_eq!(needs("nginx", "app"), "service_healthy");
}

#[test]
fn what_is_mounted_is_there_and_images_have_versions() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for volume in texts(&service["volumes"]).iter().filter(|text| text.starts_with("./")) {
            let file = volume.trim_start_matches("./").split(':').next().unwrap();
            assert!(path(file).exists(), "{name}: there is no {file}");
            assert!(volume.ends_with(":ro"), "{name}: {volume} can be written");
        }
        let image = service["image"].as_str().unwrap();
        let is_ours = !service["build"].is_null();
        assert!(is_ours || image.contains(':') && !image.ends_with(":latest"), "{name}: {image}");
    }
    let nginx = texts(&compose["services"]["nginx"]["command"]).join(" ");
    assert!(nginx.contains("/etc/nginx/tidings/nginx.conf"), "{nginx}");
}

/// As compose itself reads it, where it is there; it needs no engine for that.
#[test]
fn compose_reads_it() {
    let answers = |words: &[&str]| {
        let asked = Command::new(words[0]).args(&words[1..]).arg("version").output();
        asked.is_ok_and(|ran| ran.status.success())
    };
    let known: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let Some(words) = known.into_iter().find(|words| answers(words)) else {
        eprintln!("SKIPPED: there is no docker compose here");
        return;
    };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["-f", "compose.yaml", "config"]).current_dir(path(""));
    let said = crate::passes(&mut command);
    assert!(said.contains("tidings_service"), "{said}");
}
