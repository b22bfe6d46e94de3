//! What is in deploy/, read as a cluster's operator would read it: with kubectl and helm.

mod chart;
mod kustomize;
mod objects;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use xtask::{tools::Tools, workspace::Workspace};

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| Tools::ready(&Workspace::find().expect("a workspace")).expect("kubectl and helm"))
}

fn kustomize(folder: &str) -> Objects {
    let mut kubectl = Command::new(&tools().kubectl);
    let output = kubectl.arg("kustomize").arg(root().join("deploy/kubernetes").join(folder)).output();
    objects::read(&printed(&output.expect("kubectl runs")))
}

fn chart() -> PathBuf {
    root().join("deploy/helm/ferroute")
}

fn helm(arguments: &[&str]) -> Output {
    let mut helm = Command::new(&tools().helm);
    helm.arg(arguments[0]).args(["ferroute"].iter().filter(|_| arguments[0] == "template"));
    helm.arg(chart()).args(&arguments[1..]).output().expect("helm runs")
}

fn template(arguments: &[&str]) -> Objects {
    let arguments = [&["template", "--namespace", "kube-system"], arguments].concat();
    objects::read(&printed(&helm(&arguments)))
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The one DaemonSet among them, and its one container.
fn daemon_set(objects: &Objects) -> &Value {
    &objects[&("DaemonSet".to_owned(), "ferroute".to_owned())]
}

fn container(objects: &Objects) -> &Value {
    let containers = &daemon_set(objects)["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
    &containers[0]
}
