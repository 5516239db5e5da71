//! Alerts and dashboards ask for metrics that exist, and Prometheus can read them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{passes, path, programs, read, yaml};

/// Names and labels, from the list that tests/docs.rs writes from the code.
fn catalogue() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for line in read("docs/operations.md").lines() {
        let Some(rest) = line.strip_prefix("| `tidings_") else { continue };
        let Some((name, rest)) = rest.split_once("` | ") else { continue };
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels: BTreeSet<String> =
            labels.trim_end_matches('}').split(',').map(str::to_owned).collect();
        let name = format!("tidings_{name}");
        if rest.starts_with("histogram") {
            for (end, label) in [("_bucket", "le"), ("_sum", ""), ("_count", "")] {
                let labels = labels.iter().cloned().chain([label.to_owned()]).collect();
                found.insert(format!("{name}{end}"), labels);
            }
        } else {
            found.insert(name, labels);
        }
    }
    assert!(found.len() > 40, "the list of metrics is not found any more");
    found
}

/// Every metric in an expression, with the labels that it is asked by.
fn check(place: &str, expression: &str, catalogue: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let mut count = 0;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (at, _) in expression.match_indices("tidings_") {
        if expression[..at].chars().next_back().is_some_and(is_name) {
            continue;
        }
        let rest = &expression[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let labels = catalogue.get(name);
        let labels = labels.unwrap_or_else(|| panic!("{place}: there is no metric {name}"));
        count += 1;
        let asked = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
        for label in asked.split(',').filter_map(|one| one.split(['=', '!']).next()) {
            let of_prometheus = ["", "instance", "job"].contains(&label);
            assert!(
                of_prometheus || labels.contains(label),
                "{place}: {name} has no label {label}"
            );
        }
    }
    count
}

fn rules() -> Value {
    yaml(&read("deploy/monitoring/rules.yml"))
}

#[test]
fn alerts_ask_for_metrics_that_exist_and_operators_are_told_what_to_do() {
    let catalogue = catalogue();
    let page = read("docs/operations.md");
    let rules = rules();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        check(name, rule["expr"].as_str().unwrap(), &catalogue);
        assert!(page.contains(&format!("`{name}`")), "docs/operations.md: nothing about {name}");
        for field in ["summary", "description", "runbook"] {
            assert!(rule["annotations"][field].is_string(), "{name} has no {field}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let catalogue = catalogue();
    let board: Value =
        serde_json::from_str(&read("deploy/monitoring/grafana/dashboard.json")).unwrap();
    let mut asked = 0;
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is another one's too");
        for target in panel["targets"].as_array().into_iter().flatten() {
            asked += check(title, target["expr"].as_str().unwrap(), &catalogue);
        }
    }
    assert!(asked > 40, "{asked}");
    let variable = board["templating"]["list"][1]["query"]["query"].as_str().unwrap();
    assert_eq!(check("the variable", variable, &catalogue), 1);
}

/// Grafana is told of the files where compose.yaml puts them.
#[test]
fn the_dashboard_is_where_grafana_looks() {
    let provider = yaml(&read("deploy/monitoring/grafana/provisioning/dashboards/tidings.yaml"));
    let folder = provider["providers"][0]["options"]["path"].as_str().unwrap();
    let compose = yaml(&read("compose.yaml"));
    let mounted = compose["services"]["grafana"]["volumes"].to_string();
    assert!(mounted.contains(&format!("dashboard.json:{folder}/dashboard.json")), "{mounted}");
    let home = &compose["services"]["grafana"]["environment"];
    let home = home["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(home.starts_with(folder));
    let source = yaml(&read("deploy/monitoring/grafana/provisioning/datasources/prometheus.yaml"));
    assert_eq!(source["datasources"][0]["url"], "http://prometheus:9090");
}

#[test]
fn the_operators_rules_are_the_same() {
    let operators = yaml(&read("k8s/components/monitoring/rules.yaml"));
    assert_eq!(operators["spec"]["groups"], rules()["groups"]);
}

#[test]
fn prometheus_reads_them_and_alerts_go_off_when_they_should() {
    let Some(promtool) = programs::find("promtool", "prometheus") else { return };
    let run = |args: &[&str]| {
        let mut command = Command::new(&promtool);
        passes(command.args(args).current_dir(path("deploy/monitoring")))
    };
    run(&["check", "rules", "rules.yml"]);
    run(&["check", "config", "prometheus.yml"]);
    run(&["test", "rules", "rules_test.yml"]);
}
