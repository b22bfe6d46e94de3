//! Who may, and to which endpoint: source ranges, session affinity, policies of live Services, hairpins.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use xtask::lab::{Place, SctpSession, Stream, TcpSession, Via, ask, ask_within, available};

use super::{
    exposed::{Exposed, VIAS},
    probe::{Meets, answer_of, check, probes},
    stage::Stage,
};
use crate::world::{SOON, TRY, eventually};

#[test]
fn a_pod_reaches_itself_in_every_way() {
    if !available() {
        return;
    }
    let stage = Stage::new("hairpin");
    let exposed = Exposed::new("web");
    stage.apply(&exposed.of(&[stage.member("web-a")]));
    let (pod, node) = (stage.place("web-a"), stage.place("node-a"));
    let all = exposed.all_of(&node);
    // The socket path leaves a pod its own address; the packet path must hide it, or the answer would not
    // come back through the node.
    let sockets = [Via::Tcp, Via::Udp];
    let others = exposed.node_port_of(&stage.node("node-b"));
    let far = answer_of(&pod, &stage.node("node-b"));
    check(
        &[
            probes(&pod, &sockets, &all, answer_of(&pod, &pod)),
            probes(&pod, &[Via::Sctp], &all, answer_of(&pod, &node)),
            // Out to the other node and back.
            probes(&pod, &VIAS, &others, far),
        ]
        .concat(),
    );
}

#[test]
fn source_ranges_are_for_load_balancer_addresses_and_for_everyone() {
    if !available() {
        return;
    }
    let stage = Stage::new("ranges");
    let exposed = Exposed::new("web");
    let stranger = stage.world.lab().add_outside("stranger").expect("another client");
    let (web, node) = (stage.place("web-a"), stage.place("node-a"));
    let (inside, pod_in) = (&stage.outside, stage.place("client-a"));
    let pod_out = stage.place("web-b");
    let apply = |ranges: &[String]| {
        let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
        stage.apply(&[exposed.service().source_ranges(&ranges).build()]);
    };
    let only = |place: &Place| place.addresses().both().map(|ip| format!("{ip}/{}", bits(ip)));
    stage.apply(&exposed.slices(&[stage.member("web-a")]));
    let unlimited = [exposed.node_port_of(&node), exposed.external()].concat();
    let limited = exposed.balancer();
    let answered = |place: &Place, tos: &[SocketAddr]| probes(place, &VIAS, tos, answer_of(&web, place));
    let denied = |place: &Place| probes(place, &VIAS, &limited, |_| Meets::Silence);

    apply(&[only(inside), only(&pod_in)].concat());
    check(
        &[
            answered(inside, &limited),
            answered(&pod_in, &limited),
            denied(&stranger),
            denied(&pod_out),
            // Node ports and external IPs are not limited.
            answered(&stranger, &unlimited),
            answered(inside, &unlimited),
        ]
        .concat(),
    );
    // Without an endpoint a stranger learns no more than before.
    stage.apply(&exposed.slices(&[]));
    check(&[probes(inside, &VIAS, &limited, |_| Meets::Refused), denied(&stranger)].concat());
    stage.apply(&exposed.slices(&[stage.member("web-a")]));

    // Ranges of a live Service: who is connected stays, who comes new is judged anew.
    check(&answered(inside, &limited));
    let mut sessions = limited.map(|to| inside.run(|| TcpSession::connect(to, SOON)).expect("connected"));
    apply(&only(&stranger));
    check(&[answered(&stranger, &limited), denied(inside), denied(&pod_in)].concat());
    for session in &mut sessions {
        session.ask(b"still here").expect("a connection that was there before");
    }
    // Ranges of one family leave the other open.
    apply(&only(&stranger)[..1]);
    let [v4, v6] = limited;
    check(&probes(inside, &VIAS, &[v6], answer_of(&web, inside)));
    check(&probes(inside, &VIAS, &[v4], |_| Meets::Silence));
    apply(&[]);
    check(&[answered(inside, &limited), answered(&stranger, &limited)].concat());
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The endpoints that so many requests meet. The client's source port differs each time.
pub(crate) fn endpoints(from: &Place, via: Via, to: SocketAddr, requests: u32) -> BTreeSet<String> {
    from.run(|| {
        let one = |_| ask(via, to).unwrap_or_else(|failure| panic!("asking {to} by {via:?}: {failure}"));
        (0..requests).map(|n| one(n).endpoint).collect()
    })
}

/// So many requests meet both of two endpoints, but for one in 500,000.
pub(crate) const ENOUGH: u32 = 20;

/// Waits until requests are answered by both, or by one only.
pub(crate) fn until_spread(from: &Place, via: Via, to: SocketAddr, over: usize) {
    eventually(&format!("{over} endpoints at {to} by {via:?} for {}", from.name()), || {
        from.run(|| {
            let mut seen = BTreeSet::new();
            for _ in 0..ENOUGH {
                seen.insert(ask_within(via, to, TRY).map_err(|failure| failure.to_string())?.endpoint);
            }
            if seen.len() == over { Ok(()) } else { Err(format!("{seen:?}")) }
        })
    });
}

#[test]
fn affinity_is_of_a_clients_address_at_all_frontends_of_a_service_port() {
    if !available() {
        return;
    }
    let stage = Stage::new("affinity");
    let exposed = Exposed::new("web");
    let node = stage.node("node-a");
    let (inside, pod) = (&stage.outside, stage.place("client-a"));
    let members = ["web-a", "web-b"].map(|name| stage.member(name));
    stage.apply(&exposed.slices(&members));
    stage.apply(&[exposed.service().build()]);
    let first_of = |tos: [SocketAddr; 2]| tos[0];
    for via in VIAS {
        until_spread(inside, via, first_of(exposed.node_port_of(&node)), 2);
    }
    stage.apply(&[exposed.service().affinity(600).build()]);
    for via in VIAS {
        until_spread(inside, via, first_of(exposed.node_port_of(&node)), 1);
        for family in 0..2 {
            let frontends =
                [exposed.node_port_of(&node), exposed.external(), exposed.balancer(), exposed.cluster()];
            let met: BTreeSet<String> =
                frontends.iter().flat_map(|tos| endpoints(inside, via, tos[family], 5)).collect();
            assert_eq!(met.len(), 1, "{via:?}: {met:?}");
        }
    }
    // SCTP of pods, too; and the endpoint that has gone is left.
    let to = exposed.cluster()[0];
    until_spread(&pod, Via::Sctp, to, 1);
    for (gone, left) in [("web-a", "web-b"), ("web-b", "web-a")] {
        let _gone = gone;
        stage.apply(&exposed.slices(&[stage.member(left)]));
        let left = stage.place(left);
        check(&probes(&pod, &[Via::Sctp], &exposed.cluster(), answer_of(&left, &pod)));
        let met = eventually("only what is left", || {
            let met = endpoints(inside, Via::Tcp, exposed.external()[0], 3);
            if met.iter().all(|endpoint| endpoint == left.name()) { Ok(met) } else { Err(format!("{met:?}")) }
        });
        assert_eq!(met.len(), 1);
    }
}

#[test]
fn pods_of_other_nodes_are_no_clients_outside() {
    if !available() {
        return;
    }
    for (name, pods) in [("cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"), ("no-cidr", "")] {
        let stage = Stage::with(name, |spec| spec.args(&["--cluster-cidr", pods]));
        let exposed = Exposed::new("web");
        let (node, other) = (stage.place("node-a"), stage.place("node-b"));
        let (pod, client) = (stage.place("client-b"), &stage.outside);
        let tos = exposed.node_port_of(&node);
        stage.apply(&[exposed.service().external_local().build()]);
        let (here, there) = (stage.place("web-a"), stage.place("web-b"));
        // No endpoint on the node that is asked.
        stage.apply(&exposed.slices(&[stage.member("web-b")]));
        let far = if pods.is_empty() {
            probes(&pod, &VIAS, &tos, |_| Meets::Silence)
        } else {
            // The answer has to come back through that node.
            probes(&pod, &VIAS, &tos, answer_of(&there, &node))
        };
        let outsiders = probes(client, &VIAS, &tos, |_| Meets::Silence);
        let hosts = probes(&other, &VIAS, &tos, |_| Meets::Silence);
        check(&[far, outsiders, hosts].concat());
        // One there: it keeps everybody's address.
        stage.apply(&exposed.slices(&[stage.member("web-a")]));
        let near = [&pod, client, &other].map(|from| probes(from, &VIAS, &tos, answer_of(&here, from)));
        check(&near.concat());
        // One there and one elsewhere: only pods meet both.
        stage.apply(&exposed.slices(&["web-a", "web-b"].map(|name| stage.member(name))));
        let over = if pods.is_empty() { 1 } else { 2 };
        for (via, to) in VIAS.iter().flat_map(|via| tos.map(|to| (*via, to))) {
            until_spread(&pod, via, to, over);
            until_spread(client, via, to, 1);
        }
    }
}

#[test]
fn policies_change_under_live_connections() {
    if !available() {
        return;
    }
    let stage = Stage::new("live");
    let exposed = Exposed::new("web");
    let (node, client) = (stage.place("node-a"), &stage.outside);
    let web = stage.place("web-b");
    stage.apply(&exposed.slices(&[stage.member("web-b")]));
    stage.apply(&[exposed.service().build()]);
    let tos = [exposed.node_port_of(&node), exposed.external()].concat();
    let served = probes(client, &VIAS, &tos, answer_of(&web, &node));
    let dropped = probes(client, &VIAS, &tos, |_| Meets::Silence);
    check(&served);
    let streams = exposed.node_port_of(&node).map(|to| Stream::start(client, to, Duration::from_millis(1)));
    let connect = |to| client.run(|| SctpSession::connect(to, SOON)).expect("connected");
    let mut associations = exposed.node_port_of(&node).map(connect);
    let unharmed = |associations: &mut [SctpSession]| {
        for stream in &streams {
            assert!(stream.wait_for_more(200_000, SOON), "a connection that was there before");
        }
        for association in associations {
            association.ask(b"still here").expect("an association that was there before");
        }
    };
    unharmed(&mut associations);
    for _round in 0..2 {
        stage.apply(&[exposed.service().external_local().build()]);
        check(&dropped);
        unharmed(&mut associations);
        stage.apply(&[exposed.service().build()]);
        check(&served);
        unharmed(&mut associations);
    }
    // The endpoint leaves; the connections to it are between it and its clients.
    stage.apply(&exposed.slices(&[stage.member("web-a")]));
    check(&probes(client, &VIAS, &tos, answer_of(&stage.place("web-a"), client)));
    unharmed(&mut associations);
    stage.apply(&exposed.slices(&[]));
    check(&probes(client, &VIAS, &tos, |_| Meets::Refused));
    unharmed(&mut associations);
    for stream in streams {
        assert_eq!(stream.stop().failure, None);
    }
}
