use super::*;
use crate::state::{AddressType, Ingest};

fn service(name: &str) -> Service {
    let mut object = k8s_openapi::api::core::v1::Service::default();
    object.metadata.name = Some(name.to_owned());
    Ingest::new("here").service(&object)
}

fn slice(name: &str, service: Option<&str>) -> EndpointSlice {
    EndpointSlice {
        name: ObjectName::new("default", name),
        service: service.map(Arc::from),
        address_type: AddressType::V4,
        ports: Vec::new(),
        endpoints: Vec::new(),
        triggered: None,
        problems: Vec::new(),
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn dirty(names: &[&str]) -> Dirty {
    Dirty { everything: false, services: names.iter().map(|text| name(text)).collect() }
}

fn slices_of(store: &Store, service: &str) -> Vec<String> {
    store.slices_of(&name(service)).map(|slice| slice.name.name.to_string()).collect()
}

#[test]
fn services_come_change_and_go() {
    let mut store = Store::default();
    assert_eq!(store.apply(Change::Service(service("a"))), dirty(&["a"]));
    assert!(store.apply(Change::Service(service("a"))).is_empty());
    let changed = Service { internal_local: true, ..service("a") };
    assert_eq!(store.apply(Change::Service(changed.clone())), dirty(&["a"]));
    assert_eq!(store.service(&name("a")), Some(&changed));
    assert_eq!(store.apply(Change::ServiceGone(name("a"))), dirty(&["a"]));
    assert!(store.apply(Change::ServiceGone(name("a"))).is_empty());
    assert_eq!(store.service(&name("a")), None);
}

#[test]
fn a_moved_slice_leaves_nothing_behind() {
    let mut store = Store::default();
    assert_eq!(store.apply(Change::Slice(slice("s", Some("a")))), dirty(&["a"]));
    assert_eq!(store.apply(Change::Slice(slice("s", Some("b")))), dirty(&["a", "b"]));
    assert_eq!(slices_of(&store, "a"), [] as [&str; 0]);
    assert_eq!(slices_of(&store, "b"), ["s"]);
    assert_eq!(store.apply(Change::Slice(slice("s", None))), dirty(&["b"]));
    assert_eq!(slices_of(&store, "b"), [] as [&str; 0]);
    assert!(store.apply(Change::Slice(slice("s", None))).is_empty());
    assert_eq!(store.apply(Change::Slice(slice("s", Some("a")))), dirty(&["a"]));
    assert_eq!(store.apply(Change::SliceGone(name("s"))), dirty(&["a"]));
    assert!(store.apply(Change::SliceGone(name("s"))).is_empty());
    assert!(store.by_service.is_empty() && store.slices.is_empty());
}

#[test]
fn slices_of_a_service_are_in_the_order_of_their_names() {
    let mut store = Store::default();
    for slice_name in ["c", "a", "b"] {
        store.apply(Change::Slice(slice(slice_name, Some("web"))));
    }
    let other_namespace = EndpointSlice { name: ObjectName::new("other", "d"), ..slice("d", Some("web")) };
    assert_eq!(
        store.apply(Change::Slice(other_namespace)),
        Dirty { everything: false, services: [ObjectName::new("other", "web")].into() }
    );
    assert_eq!(slices_of(&store, "web"), ["a", "b", "c"]);
}

#[test]
fn complete_lists_replace_and_only_differences_are_dirty() {
    let mut store = Store::default();
    let all = Change::Services(vec![service("kept"), service("changed"), service("gone")]);
    assert_eq!(store.apply(all), dirty(&["kept", "changed", "gone"]));
    let changed = Service { internal_local: true, ..service("changed") };
    let all = Change::Services(vec![service("kept"), changed, service("new")]);
    assert_eq!(store.apply(all), dirty(&["changed", "gone", "new"]));
    assert_eq!(store.service(&name("gone")), None);

    let all = ["kept", "moved", "gone"].map(|text| slice(text, Some(text)));
    assert_eq!(store.apply(Change::Slices(all.into())), dirty(&["kept", "moved", "gone"]));
    let all = vec![slice("kept", Some("kept")), slice("moved", Some("elsewhere"))];
    assert_eq!(store.apply(Change::Slices(all)), dirty(&["moved", "elsewhere", "gone"]));
    assert_eq!(slices_of(&store, "moved"), [] as [&str; 0]);
    assert_eq!(slices_of(&store, "gone"), [] as [&str; 0]);
    assert!(store.apply(Change::Services(Vec::new())).services().len() == 3);
    assert!(store.apply(Change::Slices(Vec::new())).services().len() == 2);
    assert!(store.service_names().next().is_none());
}

#[test]
fn names_are_those_of_services_and_of_those_that_slices_wait_for() {
    let mut store = Store::default();
    store.apply(Change::Service(service("both")));
    store.apply(Change::Slice(slice("s", Some("both"))));
    store.apply(Change::Slice(slice("t", Some("awaited"))));
    let mut names: Vec<_> = store.service_names().cloned().collect();
    names.sort();
    assert_eq!(names, [name("awaited"), name("both")]);
}

#[test]
fn another_zone_or_address_of_the_node_makes_everything_dirty() {
    let mut store = Store::default();
    assert!(!store.is_node_known());
    let node = Node { zone: Some("a".into()), ..Node::default() };
    assert!(store.apply(Change::Node(Some(node.clone()))).is_everything());
    assert!(store.apply(Change::Node(Some(node.clone()))).is_empty());
    assert!(store.apply(Change::Node(Some(Node { zone: None, ..node.clone() }))).is_everything());
    let addresses = vec!["192.0.2.1".parse().expect("an address")];
    let node = Node { addresses, ..node };
    assert!(store.apply(Change::Node(Some(node.clone()))).is_everything());
    // A deletion is no reason to forget.
    assert!(store.apply(Change::Node(None)).is_empty());
    assert_eq!(store.node(), Some(&node));
}

#[test]
fn a_node_that_is_about_to_go_is_no_reason_to_plan() {
    let mut store = Store::default();
    assert_eq!([store.is_eligible(true), store.is_eligible(false)], [true, false], "without a Node");
    let node = Node { zone: Some("a".into()), ..Node::default() };
    store.apply(Change::Node(Some(node.clone())));
    assert!(store.is_eligible(false));
    assert!(store.apply(Change::Node(Some(Node { leaving: true, ..node.clone() }))).is_empty());
    assert!(!store.is_eligible(true));
    assert!(store.apply(Change::Node(Some(node))).is_empty());
    assert!(store.is_eligible(false));
    store.apply(Change::Node(None));
    assert_eq!([store.is_eligible(true), store.is_eligible(false)], [true, false], "gone");
}

#[test]
fn a_node_that_is_not_there_is_known_not_to_be() {
    let mut store = Store::default();
    assert!(store.apply(Change::Node(None)).is_everything());
    assert!(store.is_node_known() && store.node().is_none());
    assert!(store.apply(Change::Node(None)).is_empty());
}

#[test]
fn addresses_on_links_are_kept_in_order_and_only_a_difference_is_dirty() {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let [one, two, six] = ["192.0.2.1", "192.0.2.2", "fd00::1"].map(address);
    let mut store = Store::default();
    let node_port = crate::state::ServicePort {
        name: "http".into(),
        protocol: proxy_common::Protocol::Tcp,
        port: 80,
        node_port: Some(30080),
    };
    store.apply(Change::Service(Service { ports: vec![node_port], ..service("ports") }));
    store.apply(Change::Service(Service { external_ips: vec![two], ..service("external") }));
    store.apply(Change::Service(service("plain")));
    assert_eq!(store.local_addresses(), None);
    assert_eq!(store.apply(Change::LocalAddresses(vec![six, one, one])), dirty(&["ports"]));
    assert_eq!(store.local_addresses(), Some(&[one, six][..]));
    assert!(store.apply(Change::LocalAddresses(vec![one, six])).is_empty());
    assert_eq!(store.apply(Change::LocalAddresses(vec![one, two])), dirty(&["external", "ports"]));
    assert_eq!(store.apply(Change::LocalAddresses(Vec::new())), dirty(&["external", "ports"]));
    assert_eq!(store.local_addresses(), Some(&[][..]), "none is not the same as not known");
}
