//! Topology hints: which endpoints a node keeps to, and when it ignores them. The consequences of
//! KUBE-PROXY.md 2.4, by their numbers.

use serde_json::json;
use xtask::lab::{Pod, Server, available, objects::EndpointBuilder};

use crate::{
    fixture::{Member, Web, serve, until_served_by},
    world::{From, SOURCES, World, until_dropped},
};

const ALL: &[&str] = &["web-a", "web-b", "web-c"];

/// Three nodes in the zones east, east and west, each with a client and an endpoint.
/// Servers end before their world.
struct Zones {
    _servers: Vec<Server>,
    world: World,
    web: Web,
}

impl Zones {
    fn new(name: &str, from: From) -> Self {
        let nodes: [(&str, &[&str]); 3] = [
            ("node-a", &["client-a", "web-a"]),
            ("node-b", &["client-b", "web-b"]),
            ("node-c", &["client-c", "web-c"]),
        ];
        let world = World::new(name, from, &nodes);
        let zones = Self { _servers: serve(&world, ALL), web: Web::new("web"), world };
        for (node, zone) in [("node-a", "east"), ("node-b", "east"), ("node-c", "west")] {
            zones.relabel(node, Some(zone));
        }
        zones.world.apply(&[zones.web.service().build()]);
        zones
    }

    fn relabel(&self, node: &str, zone: Option<&str>) {
        let object = self.world.node(node).object();
        self.world.apply(&[zone.map_or(object.clone(), |zone| object.zone(zone)).build()]);
    }

    fn client(&self, node: &str) -> Pod {
        self.world.pod(&format!("client-{node}"))
    }

    /// The endpoints on nodes a, b and c, each changed.
    fn hint(&self, changes: [&dyn Fn(EndpointBuilder) -> EndpointBuilder; 3]) {
        let member = |(name, change)| Member::pod(&self.world.pod(name)).with(change);
        let members = [("web-a", changes[0]), ("web-b", changes[1]), ("web-c", changes[2])].map(member);
        self.world.apply(&self.web.slices(&members));
    }

    /// Who serves the clients on nodes a, b and c.
    fn expect(&self, expected: [&[&str]; 3]) {
        for (node, endpoints) in ["a", "b", "c"].into_iter().zip(expected) {
            until_served_by(&self.client(node), &self.web, endpoints);
        }
    }
}

fn east(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint.for_zones(&["east"])
}

fn west(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint.for_zones(&["west"])
}

fn plain(endpoint: EndpointBuilder) -> EndpointBuilder {
    endpoint
}

#[test]
fn clients_keep_to_their_zone_while_every_ready_endpoint_is_hinted() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let zones = Zones::new("zones", from);
        zones.hint([&east, &east, &west]);
        zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-c"]]);
        // The host's processes do as well.
        until_served_by(&zones.world.node("node-c"), &zones.web, &["web-c"]);
        // An endpoint serves where it is hinted to, not where it is; more than one zone is possible.
        zones.hint([&west, &east, &|endpoint| endpoint.for_zones(&["west", "east"])]);
        zones.expect([&["web-b", "web-c"], &["web-b", "web-c"], &["web-a", "web-c"]]);
        // 1: one without a hint, and nobody's count.
        zones.hint([&east, &plain, &west]);
        zones.expect([ALL, ALL, ALL]);
        // 2: unless it is not ready; then its hint would not count either.
        zones.hint([&east, &|endpoint| endpoint.conditions(false, true, false), &west]);
        zones.expect([&["web-a"], &["web-a"], &["web-c"]]);
        // 5: no endpoint for a zone: all of them.
        zones.hint([&east, &east, &east]);
        zones.expect([ALL, ALL, ALL]);
        // 6: those of a zone are not ready: all that are.
        zones.hint([&east, &east, &|endpoint| west(endpoint).conditions(false, false, false)]);
        zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-a", "web-b"]]);
        // 6, with terminating ones: they serve nobody while any other is ready.
        zones.hint([&east, &east, &|endpoint| west(endpoint).terminating(true)]);
        zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-a", "web-b"]]);
        // All terminating: hints do not count.
        let leaving = |endpoint: EndpointBuilder| endpoint.terminating(true);
        zones.hint([&|e| leaving(east(e)), &|e| leaving(east(e)), &|e| leaving(west(e))]);
        zones.expect([ALL, ALL, ALL]);
    }
}

#[test]
fn hints_for_nodes_come_before_those_for_zones() {
    if !available() {
        return;
    }
    let zones = Zones::new("node-hints", From::Api);
    let a = |endpoint: EndpointBuilder| endpoint.for_zones(&["east"]).for_nodes(&["node-a"]);
    let b = |endpoint: EndpointBuilder| endpoint.for_zones(&["east"]).for_nodes(&["node-b"]);
    let c = |endpoint: EndpointBuilder| endpoint.for_zones(&["west"]).for_nodes(&["node-c"]);
    zones.hint([&a, &b, &c]);
    zones.expect([&["web-a"], &["web-b"], &["web-c"]]);
    // 3: none for node-b: its zone.
    zones.hint([&a, &a, &c]);
    zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-c"]]);
    // Not every one is hinted to a node: zones.
    zones.hint([&a, &east, &c]);
    zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-c"]]);
    // For nodes alone: a node without one has no zone to fall back to.
    let only = |node: &'static str| move |endpoint: EndpointBuilder| endpoint.for_nodes(&[node]);
    zones.hint([&only("node-a"), &only("node-b"), &only("node-b")]);
    zones.expect([&["web-a"], &["web-b", "web-c"], ALL]);
    // 4: a node needs no zone for its own hint.
    zones.relabel("node-a", None);
    zones.relabel("node-b", None);
    zones.hint([&a, &b, &c]);
    zones.expect([&["web-a"], &["web-b"], &["web-c"]]);
}

#[test]
fn a_node_changes_its_zone() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let zones = Zones::new("relabel", from);
        zones.hint([&east, &east, &west]);
        let client = zones.client("a");
        until_served_by(&client, &zones.web, &["web-a", "web-b"]);
        zones.relabel("node-a", Some("west"));
        until_served_by(&client, &zones.web, &["web-c"]);
        // 4: no zone, or an empty one, matches nothing.
        zones.relabel("node-a", None);
        until_served_by(&client, &zones.web, ALL);
        zones.relabel("node-a", Some("east"));
        until_served_by(&client, &zones.web, &["web-a", "web-b"]);
        zones.relabel("node-a", Some(""));
        until_served_by(&client, &zones.web, ALL);
        // That was node-a's own affair.
        zones.expect([ALL, &["web-a", "web-b"], &["web-c"]]);
    }
}

#[test]
fn local_policy_ignores_hints() {
    if !available() {
        return;
    }
    // 7 and 8.
    let zones = Zones::new("local-hints", From::Manifests);
    let local = Web::new("local");
    zones.world.apply(&[local.service().internal_local().build()]);
    zones.hint([&west, &east, &west]);
    let members = ["web-a", "web-b"]
        .map(|name| Member::pod(&zones.world.pod(name)).with(if name == "web-a" { west } else { east }));
    zones.world.apply(&local.slices(&members));
    until_served_by(&zones.client("a"), &local, &["web-a"]);
    until_served_by(&zones.client("a"), &zones.web, &["web-b"]);
    until_served_by(&zones.client("b"), &local, &["web-b"]);
    for via in [xtask::lab::Via::Tcp, xtask::lab::Via::UdpConnected] {
        for to in local.both() {
            until_dropped(&zones.client("c"), via, to);
        }
    }
}

#[test]
fn a_node_that_is_not_ready_is_served_all_the_same() {
    if !available() {
        return;
    }
    // 9.
    let zones = Zones::new("not-ready", From::Api);
    zones.hint([&east, &east, &west]);
    zones.expect([&["web-a", "web-b"], &["web-a", "web-b"], &["web-c"]]);
    let mut node = zones.world.node("node-c").object().zone("east").build();
    node["spec"]["unschedulable"] = json!(true);
    node["spec"]["taints"] = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }]);
    node["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
    zones.world.apply(&[node]);
    // That the zone is another shows that the object has arrived.
    until_served_by(&zones.client("c"), &zones.web, &["web-a", "web-b"]);
    // The Node object goes: nothing changes, and new endpoints still come.
    zones.world.delete(&zones.world.node("node-c").object().build());
    zones.hint([&east, &plain, &west]);
    until_served_by(&zones.client("c"), &zones.web, ALL);
}
