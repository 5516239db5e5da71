//! What kustomize makes of `k8s`: the base, each overlay, and the base with each component.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{passes, path};

/// A rendered set of objects, and where its text is.
pub struct Rendered {
    pub name: String,
    pub file: PathBuf,
    pub objects: Vec<Value>,
}

impl Rendered {
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The one that a part of Tidings is called by.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let mut objects = self.objects.iter().filter(|object| object["kind"] == kind);
        let found = objects.find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("{}: there is no {kind} {name}", self.name))
    }

    /// Every template of a pod, by the name of what makes it.
    pub fn pods(&self) -> Vec<(String, &Value)> {
        let makers = self.objects.iter().filter(|object| object["spec"]["template"].is_object());
        makers
            .map(|object| {
                let name =
                    format!("{}: {} {}", self.name, object["kind"], object["metadata"]["name"]);
                (name, &object["spec"]["template"])
            })
            .collect()
    }
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every container of a pod, those that run before the others too.
pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|kind| list(&pod["spec"][kind]))
}

/// `None` where there is no kubectl; then that is said.
pub fn all() -> Option<&'static [Rendered]> {
    static ALL: OnceLock<Option<Vec<Rendered>>> = OnceLock::new();
    ALL.get_or_init(render_all).as_deref()
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(path(folder)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn render_all() -> Option<Vec<Rendered>> {
    let asked = Command::new("kubectl").args(["kustomize", "--help"]).output();
    if !asked.is_ok_and(|ran| ran.status.success()) {
        eprintln!("SKIPPED: there is no kubectl here, which renders what is in k8s");
        return None;
    }
    // Of this process: two runs may go on at once.
    let work = path("target").join(format!("k8s-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&work);
    let mut rendered = vec![render("base", &path("k8s/base"), &work)];
    for overlay in names("k8s/overlays") {
        rendered.push(render(&overlay, &path("k8s/overlays").join(&overlay), &work));
    }
    for component in names("k8s/components") {
        // What stands on another component is put on it.
        let below = component.split_once('-').map(|(first, _)| first.to_owned());
        let below = below.filter(|first| path("k8s/components").join(first).exists());
        let dir = work.join(format!("with-{component}"));
        std::fs::create_dir_all(&dir).unwrap();
        let used: String = below
            .into_iter()
            .chain([component.clone()])
            .map(|name| format!("  - ../../../k8s/components/{name}\n"))
            .collect();
        let text =
            format!("namespace: elsewhere\nresources:\n  - ../../../k8s/base\ncomponents:\n{used}");
        std::fs::write(dir.join("kustomization.yaml"), text).unwrap();
        rendered.push(render(&component, &dir, &work));
    }
    Some(rendered)
}

fn render(name: &str, dir: &std::path::Path, work: &std::path::Path) -> Rendered {
    let text = passes(Command::new("kubectl").arg("kustomize").arg(dir));
    std::fs::create_dir_all(work).unwrap();
    let file = work.join(format!("{name}.yaml"));
    std::fs::write(&file, &text).unwrap();
    let objects = text.split("\n---\n").map(crate::yaml).collect();
    Rendered { name: name.to_owned(), file, objects }
}
