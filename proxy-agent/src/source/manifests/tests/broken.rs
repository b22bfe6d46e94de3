//! What cannot be read costs nothing else, and is told with its place.

use super::*;
use crate::source::manifests::folder::{Folder, Scope};

struct Opened {
    dir: TempDir,
    folder: Folder,
    manifests: Manifests,
}

fn open(files: &[(&str, &str)]) -> Opened {
    let dir = super::folder(files);
    let mut folder = Folder::new(dir.path().to_owned(), "here");
    let manifests = folder.open().expect("the folder is there");
    Opened { dir, folder, manifests }
}

impl Opened {
    fn write(&mut self, name: &str, text: impl AsRef<[u8]>) -> Update {
        fs::write(self.dir.path().join(name), text).expect("a file");
        self.read(name)
    }

    fn read(&mut self, name: &str) -> Update {
        self.folder.update(Scope::Files([name.to_owned()].into()))
    }

    #[track_caller]
    fn assert(&self, update: &Update, changes: &[&str], problems: &[&str]) {
        assert_eq!(told(&update.changes), changes);
        assert_said(self.dir.path(), &update.problems, problems);
    }
}

/// `+name address` or `-name` of each change.
pub(super) fn told(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Service(service) => format!("+{} {}", service.name.name, service.cluster_ips[0]),
            Change::ServiceGone(name) | Change::SliceGone(name) => format!("-{}", name.name),
            Change::Slice(slice) => format!("+{} {}", slice.name.name, slice.endpoints[0].address),
            Change::Node(node) => format!("node {}", node.is_some()),
            Change::Services(list) => format!("all Services {}", list.len()),
            Change::Slices(list) => format!("all slices {}", list.len()),
            Change::LocalAddresses(_) => "addresses".to_owned(),
        })
        .collect()
}

#[test]
fn a_broken_file_keeps_its_last_good_state() {
    let good = service("a", "10.96.0.1");
    let mut opened = open(&[("a.yaml", &good), ("b.yaml", &service("b", "10.96.0.2"))]);
    let broken = format!("{}---\n# new\napiVersion: v1\nkind: [\n", service("a", "10.96.0.9"));
    for (text, place) in [
        (broken.as_bytes(), "a.yaml:12: the file cannot be read: "),
        (b"", "a.yaml: the file cannot be read: it is empty"),
        (b"apiVers", "a.yaml:1: the file cannot be read: the document is not an object"),
        (b"apiVersion: v1\nkind: \xff\n", "a.yaml:2: the file cannot be read: it is not UTF-8"),
        (b"\n\n- a\n", "a.yaml:3: the file cannot be read: "),
    ] {
        let update = opened.write("a.yaml", text);
        opened.assert(&update, &[], &[place]);
        assert!(update.problems[0].message.ends_with("its last good state stays"));
        // The same again is not news.
        let update = opened.read("a.yaml");
        opened.assert(&update, &[], &[]);
    }
    let update = opened.write("a.yaml", &good);
    opened.assert(&update, &[], &[]);
    let update = opened.write("a.yaml", service("a", "10.96.0.3"));
    opened.assert(&update, &["+a 10.96.0.3"], &[]);
}

#[test]
fn broken_json_has_a_line_too() {
    let opened = open(&[("a.json", "{\n\"apiVersion\": \"v1\",\n\"kind\": }\n")]);
    assert_said(opened.dir.path(), &opened.manifests.problems, &["a.json:3: the file cannot be read: "]);
    assert!(opened.manifests.problems[0].message.ends_with("it is skipped"));
}

#[test]
fn a_malformed_object_is_skipped_alone_and_keeps_its_last_good_version() {
    let b = service("b", "10.96.0.2");
    let mut opened = open(&[("a.yaml", &format!("{}---\n{b}", service("a", "10.96.0.1")))]);
    let malformed = service("a", "10.96.0.9").replace("port: 80", "port: eighty");
    let moved = service("b", "10.96.0.3");
    let update = opened.write("a.yaml", format!("# a comment\n{malformed}---\n{moved}"));
    opened.assert(&update, &["+b 10.96.0.3"], &["a.yaml:9: Service default/a is malformed: "]);
    assert!(update.problems[0].message.contains("eighty"), "{:?}", update.problems);

    // When it leaves the file, it is gone.
    let update = opened.write("a.yaml", &moved);
    opened.assert(&update, &["-a"], &[]);
}

#[test]
fn malformed_items_of_a_list() {
    let yaml = "apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: a}
  spec:
    clusterIP: 10.96.0.1
- apiVersion: v1
  kind: Service
  metadata: {name: b}
  spec:
    clusterIP: [10.96.0.2]
- {kind: Service, metadata: {name: c}}
- {apiVersion: v1, kind: Service, metadata: {namespace: d}}
";
    let json = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"metadata": {"name": "x"}, "spec": {"clusterIP": "10.96.0.3"}},
        {"metadata": {"name": "y"},
         "spec": {"clusterIP": 1}}
    ]}"#;
    let opened = open(&[("a.yaml", yaml), ("b.json", json)]);
    assert_eq!(services(&opened.manifests.services), ["a 10.96.0.1", "x 10.96.0.3"]);
    assert_said(
        opened.dir.path(),
        &opened.manifests.problems,
        &[
            "a.yaml:13: Service default/b (items[1]) is malformed: ",
            "a.yaml:1: items[2] has no apiVersion or no kind",
            "a.yaml:1: items[3]: a Service has no metadata.name",
            "b.json:4: Service default/y (items[1]) is malformed: ",
        ],
    );
}

#[test]
fn objects_that_cannot_be_told() {
    let text = format!(
        "apiVersion: v1\nmetadata: {{name: a}}\n---\napiVersion: v1\nkind: Service\n---\napiVersion: v1\nkind: \
         List\nitems: 5\n---\n{}",
        service("b", "10.96.0.2")
    );
    let opened = open(&[("a.yaml", &text)]);
    assert_eq!(services(&opened.manifests.services), ["b 10.96.0.2"]);
    assert_said(
        opened.dir.path(),
        &opened.manifests.problems,
        &[
            "a.yaml:1: an object has no apiVersion or no kind",
            "a.yaml:4: a Service has no metadata.name",
            "a.yaml:7: the items of a list are not a sequence",
        ],
    );
}

#[test]
fn the_next_file_takes_over() {
    let mut opened = open(&[("a.yaml", &service("x", "10.96.0.1")), ("b.yaml", &service("x", "10.96.0.2"))]);
    assert_eq!(opened.manifests.problems.len(), 1);
    // Known, and not said again when either of them is read again.
    for name in ["a.yaml", "b.yaml"] {
        let update = opened.read(name);
        opened.assert(&update, &[], &[]);
    }
    fs::remove_file(opened.dir.path().join("a.yaml")).expect("a file");
    let update = opened.read("a.yaml");
    opened.assert(&update, &["+x 10.96.0.2"], &[]);
    let update = opened.write("a.yaml", service("x", "10.96.0.2"));
    opened.assert(&update, &[], &["b.yaml:1: Service default/x is already defined in a.yaml:1"]);
    fs::remove_file(opened.dir.path().join("b.yaml")).expect("a file");
    let update = opened.read("b.yaml");
    opened.assert(&update, &[], &[]);
    fs::remove_file(opened.dir.path().join("a.yaml")).expect("a file");
    let update = opened.folder.update(Scope::AllBut([].into()));
    opened.assert(&update, &["-x"], &[]);
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_state() {
    let mut opened = open(&[("a.yaml", &service("a", "10.96.0.1"))]);
    let path = opened.dir.path().join("a.yaml");
    fs::remove_file(&path).expect("a file");
    // A link that leads to itself: there, and unreadable even for root.
    std::os::unix::fs::symlink("a.yaml", &path).expect("a link");
    let update = opened.read("a.yaml");
    opened.assert(&update, &[], &["a.yaml: the file cannot be read: "]);
}

#[test]
fn a_folder_that_cannot_be_read_keeps_its_state() {
    let mut opened = open(&[("a.yaml", &service("a", "10.96.0.1"))]);
    fs::remove_dir_all(opened.dir.path()).expect("a folder");
    let update = opened.folder.update(Scope::AllBut([].into()));
    assert_eq!(told(&update.changes), [] as [&str; 0]);
    assert!(update.problems[0].message.contains("its last state stays"), "{:?}", update.problems);
}
