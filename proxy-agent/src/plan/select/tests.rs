//! Rows of the tables in KUBE-PROXY.md 2.1, 2.2 and 2.4.

use std::sync::Arc;

use super::*;
use crate::state::{AddressType, Hints, ObjectName, SlicePort};

const READY: Endpoint = Endpoint {
    address: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)),
    ready: true,
    serving: true,
    terminating: false,
    local: false,
    hints: None,
};
const FINISHING: Endpoint = Endpoint { ready: false, terminating: true, ..READY };
const NOT_READY: Endpoint = Endpoint { ready: false, ..READY };

fn local(endpoint: &Endpoint) -> Endpoint {
    Endpoint { local: true, ..endpoint.clone() }
}

fn zones(endpoint: &Endpoint, zones: &[&str]) -> Endpoint {
    let hints = Hints { zones: zones.iter().map(|zone| (*zone).into()).collect(), ..Hints::default() };
    Endpoint { hints: Some(Arc::new(hints)), ..endpoint.clone() }
}

fn nodes(endpoint: &Endpoint, this_node: bool, zones: &[&str]) -> Endpoint {
    let zones = zones.iter().map(|zone| (*zone).into()).collect();
    let hints = Hints { zones, has_nodes: true, this_node };
    Endpoint { hints: Some(Arc::new(hints)), ..endpoint.clone() }
}

/// A slice with port 8080 named `http`, whose endpoints have the addresses 10.0.0.1, 10.0.0.2, ...
fn slice(endpoints: &[Endpoint]) -> EndpointSlice {
    let numbered = endpoints.iter().zip(1..).map(|(endpoint, last)| {
        let address = IpAddr::from([10, 0, 0, last]);
        Endpoint { address, ..endpoint.clone() }
    });
    EndpointSlice {
        name: ObjectName::new("ns", "slice"),
        service: Some("web".into()),
        address_type: AddressType::V4,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: numbered.collect(),
        triggered: None,
        problems: Vec::new(),
    }
}

fn select_all(slices: &[EndpointSlice], rules: Rules<'_>) -> Selection {
    select(&candidates(slices.iter(), Family::V4, "http", Protocol::Tcp), rules)
}

const BOTH: Rules<'_> = Rules { cluster: true, local: true, zone: Some("here"), keep: Keep::Finishing };

/// The last octets of the members of a list.
fn members(selection: &Selection, list: EndpointList) -> Vec<u8> {
    let inside = selection.endpoints.iter().filter(|endpoint| endpoint.is_in(list));
    inside
        .map(|endpoint| match endpoint.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => unreachable!("only IPv4 here"),
        })
        .collect()
}

fn assert_lists(endpoints: &[Endpoint], cluster: &[u8], local: &[u8], what: &str) -> Selection {
    let selection = select_all(&[slice(endpoints)], BOTH);
    assert_eq!(members(&selection, EndpointList::Cluster), cluster, "cluster list: {what}");
    assert_eq!(members(&selection, EndpointList::Local), local, "local list: {what}");
    selection
}

/// What it is, the endpoints, and the last octets of the cluster list and of the local list.
type Row<'a> = (&'a str, &'a [Endpoint], &'a [u8], &'a [u8]);

#[test]
fn truth_table() {
    let rows: &[(Row<'_>, bool)] = &[
        (("R local, no ST", &[READY, local(&READY)], &[1, 2], &[2]), true),
        (("R local, ST local", &[READY, local(&READY), local(&FINISHING)], &[1, 2], &[2]), true),
        (("R, ST local", &[READY, local(&FINISHING)], &[1], &[2]), true),
        (("R, ST elsewhere", &[READY, FINISHING], &[1], &[]), true),
        (("R, no ST", &[READY], &[1], &[]), true),
        (("ST local and elsewhere", &[FINISHING, local(&FINISHING), NOT_READY], &[1, 2], &[2]), true),
        (("ST elsewhere", &[FINISHING, local(&NOT_READY)], &[1], &[]), true),
        (("not ready", &[NOT_READY, local(&NOT_READY)], &[], &[]), false),
        (("none", &[], &[], &[]), false),
    ];
    for ((what, endpoints, cluster, local), has_any) in rows {
        let selection = assert_lists(endpoints, cluster, local, what);
        assert_eq!(selection.has_any, *has_any, "{what}");
    }
}

#[test]
fn conditions() {
    let not_serving = Endpoint { serving: false, ..FINISHING };
    let rows: &[(&str, Endpoint, &[u8], bool)] = &[
        ("terminating and not serving", not_serving, &[], false),
        (
            "ready and terminating (publishNotReadyAddresses)",
            Endpoint { terminating: true, ..READY },
            &[1],
            true,
        ),
        ("ready and not serving", Endpoint { serving: false, ..READY }, &[1], true),
        ("serving and not ready", NOT_READY, &[], false),
    ];
    for (what, endpoint, cluster, has_any) in rows {
        let selection = assert_lists(std::slice::from_ref(endpoint), cluster, &[], what);
        assert_eq!(selection.has_any, *has_any, "{what}");
    }
    // Terminating and ready at once is R: it keeps ST out.
    assert_lists(&[Endpoint { terminating: true, ..READY }, FINISHING], &[1], &[], "R before ST");
}

#[test]
fn consequences_1_to_8_of_hints() {
    let (here, there) = (zones(&READY, &["here"]), zones(&READY, &["there"]));
    let (this, that) = (nodes(&READY, true, &["there"]), nodes(&READY, false, &["here"]));
    let rows: &[Row<'_>] = &[
        ("zone hints", &[here.clone(), there.clone()], &[1], &[]),
        ("several zones in a hint", &[zones(&READY, &["here", "there"]), there.clone()], &[1], &[]),
        ("1: one endpoint without a hint", &[here.clone(), there.clone(), READY], &[1, 2, 3], &[]),
        ("1: of nodes likewise", &[this.clone(), that.clone(), READY], &[1, 2, 3], &[]),
        ("2: a hint missing where not ready", &[here.clone(), there.clone(), NOT_READY], &[1], &[]),
        ("2: a hint where not ready", &[zones(&NOT_READY, &["here"]), there.clone()], &[2], &[]),
        ("3: node before zone", &[this.clone(), that.clone()], &[1], &[]),
        ("3: zone when no node matches", &[that.clone(), nodes(&READY, false, &["there"])], &[1], &[]),
        ("3: zone when a node hint is missing", &[this.clone(), here.clone()], &[2], &[]),
        ("5: no zone matches", &[there.clone(), there.clone()], &[1, 2], &[]),
        ("6: only other zones are ready", &[zones(&FINISHING, &["here"]), there.clone()], &[2], &[]),
        ("7: local ignores hints", &[local(&there), local(&READY)], &[1, 2], &[1, 2]),
        ("8: the lists may disagree", &[here.clone(), local(&there)], &[1], &[2]),
        ("the fallback is without topology", &[zones(&FINISHING, &["here"]), FINISHING], &[1, 2], &[]),
    ];
    for (what, endpoints, cluster, local) in rows {
        assert_lists(endpoints, cluster, local, what);
    }
}

#[test]
fn consequence_4_a_node_without_a_zone_matches_none() {
    let endpoints = [zones(&READY, &["here"]), zones(&READY, &[""])];
    let selection = select_all(&[slice(&endpoints)], Rules { zone: None, ..BOTH });
    assert_eq!(members(&selection, EndpointList::Cluster), [1, 2]);
}

#[test]
fn lists_that_are_not_used_are_empty_and_has_any_looks_at_all() {
    let slices = [slice(&[READY, local(&READY)])];
    let selection = select_all(&slices, Rules { cluster: false, ..BOTH });
    assert_eq!(members(&selection, EndpointList::Cluster), [] as [u8; 0]);
    assert_eq!(members(&selection, EndpointList::Local), [2]);
    assert_eq!(selection.endpoints.len(), 1);
    let selection = select_all(&slices, Rules { local: false, ..BOTH });
    assert_eq!(members(&selection, EndpointList::Local), [] as [u8; 0]);

    let selection = select_all(&[slice(&[READY])], Rules { cluster: false, ..BOTH });
    assert!(selection.has_any && selection.endpoints.is_empty());
}

#[test]
fn who_only_finishes_is_there_in_no_list() {
    let selection = select_all(&[slice(&[READY, FINISHING, NOT_READY])], BOTH);
    let found: Vec<_> =
        selection.endpoints.iter().map(|endpoint| (endpoint.lists, endpoint.terminating)).collect();
    assert_eq!(found, [(EndpointList::Cluster as u8, false), (EndpointList::None as u8, true)]);
}

#[test]
fn sorted_by_text() {
    let mut slice = slice(&[READY, READY, READY]);
    for (endpoint, last) in slice.endpoints.iter_mut().zip([9, 10, 1]) {
        endpoint.address = IpAddr::from([10, 0, 0, last]);
    }
    let selection = select_all(&[slice.clone()], BOTH);
    assert_eq!(members(&selection, EndpointList::Cluster), [10, 1, 9], "10.0.0.10: before 10.0.0.1:");

    slice.endpoints.truncate(1);
    slice.ports.extend([SlicePort { port: 443, ..slice.ports[0].clone() }]);
    let ports: Vec<u16> = select_all(&[slice], BOTH).endpoints.iter().map(|endpoint| endpoint.port).collect();
    assert_eq!(ports, [443, 8080]);
    assert_eq!(&text_key("fd00::1".parse().expect("an address"), 80)[..13], b"[fd00::1]:80\0");
    let longest = "1111:1111:1111:1111:1111:1111:1111:1111".parse().expect("an address");
    assert_eq!(text_key(longest, 65535).last(), Some(&b'5'));
}

#[test]
fn ports_match_by_name_and_protocol_only() {
    let mut slice = slice(&[READY]);
    slice.ports = vec![
        SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: 5353 },
        SlicePort { name: "dns".into(), protocol: Protocol::Tcp, port: 5354 },
        SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 80 },
    ];
    let mut other = slice.clone();
    other.endpoints[0].address = IpAddr::from([10, 0, 0, 2]);
    other.ports[0].port = 53;
    let slices = [slice, other];
    for (name, protocol, family, expected) in [
        ("dns", Protocol::Udp, Family::V4, &[5353, 53][..]),
        ("dns", Protocol::Tcp, Family::V4, &[5354, 5354]),
        ("", Protocol::Tcp, Family::V4, &[80, 80]),
        ("", Protocol::Udp, Family::V4, &[]),
        ("http", Protocol::Tcp, Family::V4, &[]),
        ("dns", Protocol::Udp, Family::V6, &[]),
    ] {
        let found = candidates(slices.iter(), family, name, protocol);
        let ports: Vec<u16> = found.iter().map(|candidate| candidate.port).collect();
        assert_eq!(ports, expected, "{name:?} {protocol:?} {family:?}");
    }
}

#[test]
fn no_ports_no_endpoints() {
    let slice = EndpointSlice { ports: Vec::new(), ..slice(&[READY]) };
    assert!(candidates([&slice].into_iter(), Family::V4, "", Protocol::Tcp).is_empty());
}

/// KUBE-PROXY.md 2.2: what is stored, what comes next, which of the two it is then.
#[test]
fn duplicates() {
    let rows: &[(&str, Endpoint, Endpoint, bool)] = &[
        ("ready, then ready elsewhere", READY, local(&READY), true),
        ("ready, then not ready", READY, NOT_READY, true),
        ("not ready, then ready", NOT_READY, READY, true),
        ("terminating, then ready", FINISHING, READY, true),
        ("terminating, then not ready", FINISHING, NOT_READY, true),
        ("ready, then terminating", READY, FINISHING, false),
        ("not ready, then terminating", NOT_READY, FINISHING, false),
        ("terminating, then terminating elsewhere", FINISHING, local(&FINISHING), false),
    ];
    for (what, stored, next, replaced) in rows {
        let slices = [slice(std::slice::from_ref(stored)), slice(std::slice::from_ref(next))];
        let found = candidates(slices.iter(), Family::V4, "http", Protocol::Tcp);
        let expected = &slices[usize::from(*replaced)].endpoints[0];
        assert_eq!(found.len(), 1, "{what}");
        assert_eq!(found[0].endpoint, expected, "{what}");
    }
}

#[test]
fn what_is_known_besides_the_lists() {
    let gone = Endpoint { serving: false, ..NOT_READY };
    let dying = Endpoint { serving: false, ..FINISHING };
    let elsewhere = zones(&READY, &["there"]);
    let endpoints = [zones(&READY, &["here"]), elsewhere, FINISHING, NOT_READY, gone, dying];
    let known = |keep| {
        let selection = select_all(&[slice(&endpoints)], Rules { keep, ..BOTH });
        assert_eq!(members(&selection, EndpointList::Cluster), [1], "the lists do not depend on it");
        let last = |endpoint: &PlannedEndpoint| match endpoint.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => unreachable!("only IPv4 here"),
        };
        selection.endpoints.iter().map(last).collect::<Vec<_>>()
    };
    assert_eq!(known(Keep::Finishing), [1, 3]);
    assert_eq!(known(Keep::Serving), [1, 2, 3, 4]);
    assert_eq!(known(Keep::Present), [1, 2, 3, 4, 5, 6]);
}
