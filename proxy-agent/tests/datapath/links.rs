//! The programs of the packet path on links that the tests have made.

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use proxy_agent::{
    datapath::{self, Datapath, LinkOptions, LinkView, Options, TcMode, WorkloadLinks, XdpMode},
    links::{self, Topology},
};
use proxy_common::LinkRole::{self, Uplink, Workload};

use crate::{
    network::{Network, topology},
    world::World,
};

/// An agent's start: everything programmed, then the links.
fn start(options: &Options, links: &Topology) -> Datapath {
    let mut datapath = Datapath::open(options).unwrap_or_else(|error| panic!("{error}: {error:?}"));
    assert!(!datapath.set_links(links), "nothing is attached before the first complete state");
    datapath.reconcile(&[]).unwrap();
    assert!(datapath.set_links(links));
    datapath
}

fn with(world: &World, links: LinkOptions) -> Options {
    Options { links, ..world.options() }
}

/// Pins of links to interfaces.
fn pins(world: &World) -> Vec<String> {
    world.links().into_keys().filter(|name| name.contains("-if")).collect()
}

fn view(world: &World, network: &Network, index: u32) -> LinkView {
    let facts = network.block_on(links::read_once()).unwrap();
    let views = datapath::inspect_links(world.bpffs(), &facts).unwrap();
    views.into_iter().find(|view| view.index == index).unwrap()
}

/// Programs on a link and how they are attached; each has a number.
fn attached(world: &World, network: &Network, index: u32) -> Vec<(&'static str, &'static str)> {
    let view = view(world, network, index);
    assert!(view.attached.iter().all(|one| one.id != 0), "{view:?}");
    view.attached.iter().map(|one| (one.program, one.how)).collect()
}

const TCX: [(&str, &str); 2] = [("uplink_egress", "tcx"), ("uplink_ingress", "tcx")];
const CLSACT: [(&str, &str); 2] = [("uplink_ingress", "clsact"), ("uplink_egress", "clsact")];

#[test]
fn the_programs_of_uplinks_follow_the_links() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let (one, two) = (network.veth("one"), network.veth("two"));
    let options = with(&world, LinkOptions { tc: TcMode::Tcx, ..LinkOptions::default() });
    let mut datapath = start(&options, &topology(&[(one, Uplink), (two, Workload)]));
    assert_eq!(pins(&world), [format!("uplink_egress-if{one}"), format!("uplink_ingress-if{one}")]);
    assert_eq!(attached(&world, &network, one), TCX);
    assert_eq!((view(&world, &network, one).role, view(&world, &network, two).role), ("uplink", "workload"));
    assert_eq!(view(&world, &network, one).sources, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);

    // Roles change places.
    assert!(datapath.set_links(&topology(&[(one, LinkRole::None), (two, Uplink)])));
    assert_eq!(pins(&world), [format!("uplink_egress-if{two}"), format!("uplink_ingress-if{two}")]);
    assert_eq!(attached(&world, &network, one), []);

    // The link goes, and comes again as another.
    network.remove(two);
    assert!(datapath.set_links(&topology(&[(two, Uplink)])), "the news of its end are still to come");
    assert!(datapath.set_links(&topology(&[])));
    assert_eq!(pins(&world), [""; 0]);
    let again = network.veth("two");
    assert!(datapath.set_links(&topology(&[(again, Uplink)])));
    assert_eq!(attached(&world, &network, again), TCX);

    drop(datapath);
    assert_eq!(attached(&world, &network, again), TCX, "without an agent");
    let table = Command::new(env!("CARGO_BIN_EXE_proxy-agent"))
        .args(["links", "--bpffs"])
        .arg(world.bpffs())
        .output()
        .unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("uplink_egress/tcx,uplink_ingress/tcx"), "{table}");
}

#[test]
fn a_restart_replaces_the_programs_in_their_place() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let links = topology(&[(network.veth("one"), Uplink), (network.veth("two"), Workload)]);
    let always = LinkOptions { workload: WorkloadLinks::Always, ..LinkOptions::default() };
    drop(start(&with(&world, always), &links));
    let before = world.links();
    assert_eq!(pins(&world).len(), 4);
    drop(start(&with(&world, always), &links));
    let after = world.links();
    for name in pins(&world) {
        assert_eq!(before[&name].id, after[&name].id, "{name} is still the same link");
        assert_ne!(before[&name].program, after[&name].program, "{name} has the new program");
    }
    drop(start(&world.options(), &links));
    assert_eq!(pins(&world).len(), 2, "pods' links have none unless needed");
}

#[test]
fn others_on_the_same_link_are_left_alone() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let index = network.veth("one");
    let links = topology(&[(index, Uplink)]);
    let other = world.other_options();
    let others = start(&other, &links);
    let ours = start(&world.options(), &links);
    drop(ours);
    datapath::cleanup(world.bpffs()).unwrap();
    let facts = network.block_on(links::read_once()).unwrap();
    let theirs = datapath::inspect_links(&other.bpffs, &facts).unwrap();
    let theirs = theirs.iter().find(|view| view.index == index).unwrap();
    assert_eq!(theirs.attached.len(), 2, "{theirs:?}");
    drop(others);
}

#[test]
fn older_kernels_get_filters() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let (one, two) = (network.veth("one"), network.veth("two"));
    let links = topology(&[(one, Uplink), (two, Uplink)]);
    let clsact = with(&world, LinkOptions { tc: TcMode::Clsact, ..LinkOptions::default() });
    let mut datapath = start(&clsact, &links);
    network.add_filter(one);
    let all = network.filters(one);
    assert_eq!(pins(&world), [""; 0]);
    assert_eq!(
        (attached(&world, &network, one), attached(&world, &network, two)),
        (CLSACT.into(), CLSACT.into())
    );
    let program = |index| view(&world, &network, index).attached[0].id;
    let before = program(one);
    assert!(datapath.set_links(&links));
    assert_eq!(program(one), before, "what is right stays");
    drop(datapath);

    let mut datapath = start(&clsact, &links);
    assert_ne!(program(one), before);
    assert_eq!(network.filters(one), all, "ours in its place, and theirs");
    assert!(datapath.set_links(&topology(&[(one, Uplink)])));
    assert_eq!(attached(&world, &network, two), []);
    assert!(datapath.set_links(&links));
    drop(datapath);

    drop(start(&world.options(), &links));
    assert_eq!(attached(&world, &network, one), TCX, "one of the two ways");
    drop(start(&clsact, &links));
    assert_eq!(attached(&world, &network, one), CLSACT);

    let removed = datapath::cleanup(world.bpffs()).unwrap();
    assert!(removed.contains(&"filter uplink_ingress of link one".to_owned()), "{removed:?}");
    assert_eq!((network.filters(one), network.filters(two)), (all - 1, 0));
    assert!(network.has_clsact(one), "with a filter of somebody else's");
    assert!(!network.has_clsact(two));
}

#[test]
fn xdp_is_attached_where_the_driver_can() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let index = network.veth("one");
    let links = topology(&[(index, Uplink)]);
    let xdp = |xdp| with(&world, LinkOptions { xdp, ..LinkOptions::default() });
    let expect = |how| [&TCX[..], &[("uplink_xdp", how)]].concat();
    drop(start(&xdp(XdpMode::Auto), &links));
    assert_eq!(attached(&world, &network, index), expect("native"));
    assert!(view(&world, &network, index).xdp_redirect);
    let pin = format!("uplink_xdp-if{index}");
    let before = world.links();
    drop(start(&xdp(XdpMode::Native), &links));
    let after = world.links();
    assert_eq!(before[&pin].id, after[&pin].id);
    assert_ne!(before[&pin].program, after[&pin].program);

    let other = Options { links: xdp(XdpMode::Auto).links, ..world.other_options() };
    let mut others = start(&other, &links);
    assert!(others.set_links(&links), "the link is taken: not tried again");
    drop(others);

    drop(start(&xdp(XdpMode::Generic), &links));
    assert_eq!(attached(&world, &network, index), expect("generic"));
    assert!(!view(&world, &network, index).xdp_redirect, "frames cannot be redirected there");
    drop(start(&xdp(XdpMode::Off), &links));
    assert_eq!(attached(&world, &network, index), TCX);

    // More than a driver's page holds.
    network.set_mtu(index, 60_000);
    network.set_mtu(network.index("onep"), 60_000);
    let mut datapath = start(&xdp(XdpMode::Auto), &links);
    assert_eq!(attached(&world, &network, index), TCX);
    network.set_mtu(network.index("onep"), 1500);
    assert!(datapath.set_links(&links));
    assert_eq!(attached(&world, &network, index), TCX, "not tried again");
    let mut changed = links.clone();
    changed.links[0].mtu = 1400;
    assert!(datapath.set_links(&changed));
    assert_eq!(attached(&world, &network, index), expect("native"));
}

#[test]
fn nothing_is_left_on_links_after_cleanup() {
    let Some(world) = World::new() else { return };
    let network = Network::new();
    let index = network.veth("one");
    let links = topology(&[(index, Uplink)]);
    let options = with(&world, LinkOptions { xdp: XdpMode::Native, ..LinkOptions::default() });
    drop(start(&options, &links));
    let removed = datapath::cleanup(world.bpffs()).unwrap();
    assert!(removed.contains(&format!("link uplink_xdp-if{index}")), "{removed:?}");
    assert!(!world.bpffs().exists());
    // Free for others.
    drop(start(&Options { links: options.links, ..world.other_options() }, &links));
    assert!(datapath::cleanup(&world.other_options().bpffs).unwrap().len() > 3);
    assert!(datapath::cleanup(world.bpffs()).unwrap().is_empty());
}

#[test]
fn more_news_than_the_kernel_keeps_do_no_harm() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let network = Network::new();
    let index = network.veth("eth0");
    let mut facts = network.watch();
    network.block_on(facts.changed()).unwrap();
    // On a thread of its own, in the same namespace: nobody reads the news meanwhile.
    let flood = std::thread::spawn(move || {
        let other = Network::here();
        for round in 0..4000_u32 {
            other.set_mtu(index, 1400 + round % 2);
        }
        other.add_address(index, Ipv4Addr::new(10, 9, 8, 7).into(), 24);
    });
    flood.join().unwrap();
    network.block_on(async {
        let there = facts.wait_for(|facts| {
            facts.iter().flat_map(|facts| &facts.links).any(|link| {
                link.index == index && link.addresses.contains(&Ipv4Addr::new(10, 9, 8, 7).into())
            })
        });
        tokio::time::timeout(Duration::from_secs(5), there).await.unwrap().unwrap();
    });
    // And the news after those.
    network.remove(index);
    network.block_on(async {
        let gone = facts
            .wait_for(|facts| facts.iter().flat_map(|facts| &facts.links).all(|link| link.index != index));
        tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap().unwrap();
    });
}

#[test]
fn a_new_address_is_known_in_no_time() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let network = Network::new();
    let index = network.veth("eth0");
    let mut facts = network.watch();
    let mut next = || {
        let start = Instant::now();
        let next = async {
            facts.changed().await.unwrap();
            facts.borrow_and_update().clone().unwrap()
        };
        let facts =
            network.block_on(async { tokio::time::timeout(Duration::from_secs(5), next).await.unwrap() });
        (links::classify(&facts, &[], &"".parse().unwrap()), start.elapsed())
    };
    let (first, _) = next();
    assert!(first.links.iter().all(|link| link.role == LinkRole::None), "{first:?}");
    network.add_address(index, Ipv4Addr::new(10, 9, 8, 7).into(), 24);
    network.add_default_route(index, Ipv4Addr::new(10, 9, 8, 1));
    let (mut topology, mut took) = next();
    while topology.primary4.is_none() {
        (topology, took) = next();
    }
    println!("known after {took:?}");
    assert_eq!(topology.of_role(Uplink).map(|link| link.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    assert_eq!(topology.primary4, Some(Ipv4Addr::new(10, 9, 8, 7)));
    assert!(took < Duration::from_secs(1), "{took:?}");
}
