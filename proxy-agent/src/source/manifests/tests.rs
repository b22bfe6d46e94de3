use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::state::ObjectName;

mod broken;
mod following;

/// A Service `default/NAME`.
fn service(name: &str, cluster_ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {cluster_ip}\n  ports:\n  \
         - port: 80\n"
    )
}

/// An EndpointSlice `default/NAME` with one endpoint.
fn slice(name: &str, address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels: \
         {{kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{{name: '', port: 8080}}]\n\
         endpoints: [{{addresses: [{address}]}}]\n"
    )
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().expect("a folder");
    for (name, text) in files {
        fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

fn loaded(dir: &TempDir) -> Manifests {
    load(dir.path().to_owned(), "here").expect("the folder is there")
}

/// `name address` of each Service.
fn services(services: &[Service]) -> Vec<String> {
    services.iter().map(|service| format!("{} {}", service.name.name, service.cluster_ips[0])).collect()
}

/// The problems, with the folder left out.
fn said(dir: &Path, problems: &[FileProblem]) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

#[track_caller]
fn assert_said(dir: &Path, problems: &[FileProblem], parts: &[&str]) {
    let said = said(dir, problems);
    assert_eq!(said.len(), parts.len(), "{said:?} should be {parts:?}");
    for (said, part) in said.iter().zip(parts) {
        assert!(said.contains(part), "{said:?} should have {part:?}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = folder(&[("web.yaml", &service("web", "10.96.0.1"))]);
    fs::create_dir(dir.path().join("folder.yaml")).expect("a folder in it");
    let pipe = dir.path().join("pipe.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a pipe");
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = dir.path().to_owned();
    std::thread::spawn(move || drop(sender.send(load(path, "here"))));
    let manifests =
        receiver.recv_timeout(Duration::from_secs(5)).expect("it does not wait").expect("a folder");
    assert_eq!(services(&manifests.services), ["web 10.96.0.1"]);
    assert_said(dir.path(), &manifests.problems, &[]);
}

#[test]
fn every_document_of_every_file() {
    let two =
        format!("---\n{}---\n# nothing\n---\n{}...\n", service("b", "10.96.0.2"), slice("s", "10.0.0.1"));
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"clusterIP": "10.96.0.3"}}
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d"}, "spec": {"clusterIP": "10.96.0.4"}}"#;
    let dir = folder(&[
        ("a.yaml", &service("a", "10.96.0.1")),
        ("b.yml", &two),
        ("c.json", json),
        ("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {1: 2, true: x}\n"),
        ("old.yaml", "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: m}\n"),
        ("comment.yaml", "# nothing\n"),
        ("readme.txt", "kind: ["),
        (".hidden.yaml", "kind: ["),
        ("backup.yaml~", "kind: ["),
    ]);
    fs::create_dir(dir.path().join("folder.yaml")).expect("a folder");
    let manifests = loaded(&dir);
    assert_said(dir.path(), &manifests.problems, &[]);
    assert_eq!(
        services(&manifests.services),
        ["a 10.96.0.1", "b 10.96.0.2", "d 10.96.0.4", "c 10.96.0.3"],
        "by namespace and name"
    );
    assert_eq!(manifests.services[0].name, ObjectName::new("default", "a"));
    assert_eq!(manifests.slices.len(), 1);
    assert_eq!(manifests.slices[0].endpoints.len(), 1);
    assert_eq!(manifests.node, None);
}

#[test]
fn lists_and_the_own_node() {
    let list = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1}}
- {apiVersion: v1, kind: Secret, metadata: {name: a}}
- apiVersion: v1
  kind: Node
  metadata: {name: there}
  status: {addresses: [{type: InternalIP, address: 172.18.0.3}]}
";
    let typed = "apiVersion: v1
kind: ServiceList
items:
- {metadata: {name: b}, spec: {clusterIP: 10.96.0.2}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSliceList
items:
- {metadata: {name: s}, addressType: IPv4, endpoints: []}
---
apiVersion: v1
kind: NodeList
items:
- {metadata: {name: here}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}}
---
apiVersion: v1
kind: PodList
items: []
---
apiVersion: v1
kind: ServiceList
items:
";
    let dir = folder(&[("list.yaml", list), ("typed.yaml", typed)]);
    let manifests = loaded(&dir);
    assert_said(dir.path(), &manifests.problems, &[]);
    assert_eq!(services(&manifests.services), ["a 10.96.0.1", "b 10.96.0.2"]);
    assert_eq!(manifests.slices.len(), 1);
    let addresses = manifests.node.expect("a Node").addresses;
    assert_eq!(addresses, ["172.18.0.2".parse::<std::net::IpAddr>().expect("an address")]);
}

#[test]
fn what_a_watch_would_keep_back() {
    let dir = folder(&[(
        "a.yaml",
        "
apiVersion: v1
kind: Service
metadata: {name: other-proxy, labels: {service.kubernetes.io/service-proxy-name: ''}}
spec: {clusterIP: 10.96.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: headless, labels: {service.kubernetes.io/headless: ''}}
addressType: IPv4
endpoints: []
",
    )]);
    let manifests = loaded(&dir);
    assert_said(dir.path(), &manifests.problems, &[]);
    assert!(manifests.services.is_empty() && manifests.slices.is_empty());
}

#[test]
fn the_same_object_in_two_files() {
    let dir = folder(&[
        ("b.yaml", &service("a", "10.96.0.2")),
        ("a.yaml", &format!("\n---\n{}", service("a", "10.96.0.1"))),
        ("c.yaml", &format!("{}---\n{0}", service("c", "10.96.0.3"))),
    ]);
    let manifests = loaded(&dir);
    assert_eq!(services(&manifests.services), ["a 10.96.0.1", "c 10.96.0.3"]);
    assert_said(
        dir.path(),
        &manifests.problems,
        &[
            "c.yaml:10: Service default/c is already defined in line 1",
            "b.yaml:1: Service default/a is already defined in a.yaml:3: this one is ignored",
        ],
    );
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = load("/no/such/folder".into(), "here").expect_err("it is not there");
    assert!(error.to_string().contains("the manifest folder /no/such/folder"), "{error}");
    let file = folder(&[("file", "")]).path().join("file");
    assert!(load(file, "here").is_err());
}
