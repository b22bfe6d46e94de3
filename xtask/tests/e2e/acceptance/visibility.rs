//! Which Services and slices count at all.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::json;
use xtask::lab::{
    Via, available,
    objects::{SliceBuilder, service, slice},
};

use super::services::{ONE_NODE, until_left_alone};
use crate::{
    fixture::{Member, TARGET, Web, serve, until_served_by},
    world::{SOURCES, World, until_refused},
};

#[test]
fn row_013_015_to_and_from_external_name() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-013", from, ONE_NODE);
        let _servers = serve(&world, &["web-1", "web-2"]);
        let web = Web::new("web");
        let external = || {
            service("default", "web").kind("ExternalName").spec("externalName", json!("example.com")).build()
        };
        let client = world.pod("client");
        world.apply(&[external()]);
        world.apply(&web.of(&[&world.pod("web-1"), &world.pod("web-2")]));
        until_served_by(&client, &web, &["web-1", "web-2"]);
        world.apply(&[external()]);
        until_left_alone(&client, &web);
        world.apply(&[web.service().build()]);
        until_served_by(&client, &web, &["web-1", "web-2"]);
        // An address that the object still has does not count.
        world.apply(&[web.service().kind("ExternalName").spec("externalName", json!("example.com")).build()]);
        until_left_alone(&client, &web);
    }
}

#[test]
fn row_029_service_proxy_name() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-029", from, ONE_NODE);
        let _servers = serve(&world, &["web-1"]);
        let pod = world.pod("web-1");
        let client = world.pod("client");
        let (labelled, web) = (Web::new("labelled"), Web::new("web"));
        let label = |web: &Web, value: &str| {
            web.service().label("service.kubernetes.io/service-proxy-name", value).build()
        };
        world.apply(&[label(&labelled, "other")]);
        world.apply(&labelled.slices(&[Member::pod(&pod)]));
        world.apply(&web.of(&[&pod]));
        until_served_by(&client, &web, &["web-1"]);
        until_left_alone(&client, &labelled);
        // The key counts, whatever its value.
        for value in ["other", "", "kube-proxy"] {
            world.apply(&[label(&web, value)]);
            until_left_alone(&client, &web);
            world.apply(&[web.service().build()]);
            until_served_by(&client, &web, &["web-1"]);
        }
        world.apply(&[labelled.service().build()]);
        until_served_by(&client, &labelled, &["web-1"]);
    }
}

#[test]
fn row_030_headless_label_of_slices() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-030", from, ONE_NODE);
        let _servers = serve(&world, &["web-1", "web-2"]);
        let web = Web::new("web");
        let client = world.pod("client");
        let pods = [world.pod("web-1"), world.pod("web-2")];
        world.apply(&web.of(&[&pods[0]]));
        // A slice that is labelled from the start, next to one that is not.
        let hidden = |slice: SliceBuilder| {
            slice.port("tcp", "TCP", TARGET).label("service.kubernetes.io/headless", "")
        };
        let more = slice("default", "web-more", "web").endpoint(pods[1].endpoint4());
        world.apply(&[hidden(more).build()]);
        until_served_by(&client, &web, &["web-1"]);
        // Labels come to live slices, and go.
        let members = [Member::pod(&pods[0])];
        let both = |slice: SliceBuilder| hidden(slice).port("udp", "UDP", TARGET);
        world.apply(&web.slices_with(&members, both));
        for to in web.both() {
            until_refused(&client, Via::Tcp, to);
            until_refused(&client, Via::Udp, to);
        }
        world.apply(&web.slices(&members));
        until_served_by(&client, &web, &["web-1"]);
        // On the Service itself the label means nothing.
        world.apply(&[web.service().label("service.kubernetes.io/headless", "").build()]);
        world.apply(&web.slices(&pods.each_ref().map(Member::pod)));
        until_served_by(&client, &web, &["web-1", "web-2"]);
    }
}

#[test]
fn row_118_a_cluster_ip_outside_of_the_first_service_cidr() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let world = World::new("row-118", from, ONE_NODE);
        let _servers = serve(&world, &["web-1"]);
        let client = world.pod("client");
        let first = Web::new("first");
        world.apply(&first.of(&[&world.pod("web-1")]));
        until_served_by(&client, &first, &["web-1"]);
        let new = (Ipv4Addr::new(198, 18, 7, 1), Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 1));
        let other = Web::at("other", new);
        world.apply(&other.of(&[&world.pod("web-1")]));
        until_served_by(&client, &other, &["web-1"]);
        until_served_by(&world.node("node-a"), &other, &["web-1"]);
        until_served_by(&client, &first, &["web-1"]);
        // Its neighbours are nobody's.
        let neighbour = (Ipv4Addr::new(198, 18, 7, 2), Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, 2));
        until_left_alone(&client, &Web::at("nobody", neighbour));
    }
}
