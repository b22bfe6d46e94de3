//! The data path outlives the agent: crashes, restarts and upgrades under load.

use std::collections::BTreeMap;

use serde_json::Value;
use xtask::lab::{AgentSpec, Node, Pod, UdpSession, Via, available};

use crate::{
    helpers::{
        Ips, PATIENCE, Traffic, backends, bpftool, has_address, names, pins, until_gone, until_programmed,
        web,
    },
    scene::Scene,
    world::{From, SOON, SOURCES, answers, cluster_ips, eventually, until_answered_by},
};

/// Four pods behind the Service `web`.
fn four_pods(name: &str, from: From) -> (Scene, Ips) {
    let (scene, ips) = (Scene::new(name, from, 4), cluster_ips());
    scene.world.apply(&web("web", ips, &scene.all()));
    for to in [(ips.0, 80).into(), (ips.1, 80).into()] {
        until_programmed(&scene.world, "node-a", to, &scene.all());
    }
    (scene, ips)
}

/// Each pinned link of a node: its id, and that of the program behind it.
fn links(node: &Node) -> BTreeMap<String, (Value, Value)> {
    let folder = node.bpffs().join("links");
    let link = |name: String| {
        let path = folder.join(&name);
        let link = bpftool(node, &["link".as_ref(), "show".as_ref(), "pinned".as_ref(), path.as_os_str()]);
        assert!(link["id"].is_u64() && link["prog_id"].is_u64(), "{link}");
        (name, (link["id"].clone(), link["prog_id"].clone()))
    };
    names(node, &folder).into_iter().map(link).collect()
}

#[test]
fn a_crash_of_the_agent_fails_no_request() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let (mut scene, ips) = four_pods("crash", from);
        let traffic = Traffic::start(&scene.client, ips);
        for _crash in 0..3 {
            scene.world.take_agent("node-a").kill9().unwrap();
            traffic.go_on(100);
            scene.world.start_agent("node-a");
            traffic.go_on(100);
        }
        let answered = traffic.end_unharmed();
        assert_eq!(answered.len(), 4, "{answered:?}");
    }
}

#[test]
fn changes_missed_while_the_agent_was_down_are_made_up_for() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let (mut scene, ips) = four_pods("missed", from);
        let (client, pods) = (scene.client.clone(), scene.pods.clone());
        let (deleted, added) = (cluster_ips(), cluster_ips());
        let objects = web("deleted", deleted, &[&pods[1]]);
        scene.world.apply(&objects);
        until_answered_by(&client, Via::Tcp, (deleted.0, 80).into(), "web-2");
        let traffic = Traffic::start(&client, ips);

        scene.world.take_agent("node-a").kill9().unwrap();
        scene.world.apply(&web("web", ips, &[&pods[0], &pods[2]])[1..]);
        objects.iter().for_each(|object| scene.world.delete(object));
        scene.world.apply(&web("added", added, &[&pods[3]]));
        // Nobody tells the programs: they go on as before.
        traffic.go_on(50);
        until_answered_by(&client, Via::Tcp, (ips.0, 80).into(), "web-2");
        until_answered_by(&client, Via::Udp, (deleted.1, 80).into(), "web-2");

        // What is ready has made up for everything.
        scene.world.start_agent("node-a");
        for (via, to) in [(Via::Tcp, (ips.0, 80).into()), (Via::Udp, (ips.1, 80).into())] {
            let seen = answers(&client, via, to, 60);
            assert_eq!(seen.keys().collect::<Vec<_>>(), ["web-1", "web-3"], "{via:?}");
        }
        assert!(!has_address(&scene.world, "node-a", deleted.0), "a deleted Service is still there");
        assert!(!has_address(&scene.world, "node-a", deleted.1), "a deleted Service is still there");
        for (via, to) in [(Via::Tcp, (added.1, 80).into()), (Via::UdpConnected, (added.0, 80).into())] {
            assert_eq!(answers(&client, via, to, 3).keys().collect::<Vec<_>>(), ["web-4"], "{via:?}");
        }
        traffic.end_unharmed();
    }
}

#[test]
fn an_upgrade_swaps_the_programs_behind_the_links() {
    if !available() {
        return;
    }
    let (mut scene, ips) = four_pods("upgrade", From::Api);
    let traffic = Traffic::start(&scene.client, ips);
    let mut before = links(&scene.node());
    assert!(before.len() >= 8, "{before:?}");
    for crash in [false, true] {
        let agent = scene.world.take_agent("node-a");
        if crash {
            agent.kill9().unwrap();
        } else {
            assert_eq!(agent.terminate().unwrap().code(), Some(0), "after SIGTERM");
        }
        traffic.go_on(50);
        assert_eq!(links(&scene.node()), before, "without an agent");
        scene.world.start_agent("node-a");
        traffic.go_on(50);
        let after = links(&scene.node());
        let ids = |links: &BTreeMap<String, (Value, Value)>| -> Vec<(String, Value)> {
            links.iter().map(|(name, (id, _))| (name.clone(), id.clone())).collect()
        };
        assert_eq!(ids(&after), ids(&before), "other links");
        for (name, (_, program)) in &after {
            assert_ne!(*program, before[name].1, "{name} still has the program of the agent before");
        }
        before = after;
    }
    traffic.end_unharmed();
}

#[test]
fn sigterm_leaves_the_data_path_in_place() {
    if !available() {
        return;
    }
    for from in SOURCES {
        let (mut scene, ips) = four_pods("sigterm", from);
        let traffic = Traffic::start(&scene.client, ips);
        let status = scene.world.take_agent("node-a").terminate().unwrap();
        assert_eq!(status.code(), Some(0), "{status}");
        traffic.go_on(100);
        for to in [(ips.0, 80).into(), (ips.1, 80).into()] {
            until_programmed(&scene.world, "node-a", to, &scene.all());
        }
        traffic.end_unharmed();
    }
}

#[test]
fn other_capacities_move_to_other_maps_under_load() {
    if !available() {
        return;
    }
    let (mut scene, ips) = four_pods("capacities", From::Manifests);
    let node = scene.node();
    let [maps, sockets] = ["maps-", "sockets-"].map(|prefix| pins(&node, prefix));
    let to = (ips.0, 80).into();
    let session = scene.client.run(|| UdpSession::open(to, PATIENCE)).unwrap();
    session.ask_to(b"before", to).unwrap();

    let traffic = Traffic::start(&scene.client, ips);
    for (flag, capacity) in [("--max-backends", "500"), ("--max-slots", "700"), ("--max-frontends", "300")] {
        let before = pins(&node, "maps-");
        scene.world.take_agent("node-a").terminate().unwrap();
        scene.world.start_otherwise("node-a", |spec| spec.arg(flag).arg(capacity));
        scene.world.start_agent("node-a");
        traffic.go_on(50);
        // There is no more than one: that of before is gone.
        assert_ne!(pins(&node, "maps-"), before, "{flag} {capacity}");
        assert_eq!(pins(&node, "sockets-"), sockets, "open sockets lose their state");
        for _ in 0..5 {
            assert_eq!(session.ask_to(b"after", to).unwrap().remote, to);
        }
    }
    let capacity_of = |map: &str| {
        let path = node.bpffs().join(pins(&node, "maps-")).join(map);
        let words = ["map".as_ref(), "show".as_ref(), "pinned".as_ref(), path.as_os_str()];
        bpftool(&node, &words)["max_entries"].clone()
    };
    assert_eq!(capacity_of("BACKENDS4"), 500);
    assert_eq!(capacity_of("SLOTS"), 700);
    assert_eq!(capacity_of("FRONTENDS6"), 300);

    // And back: the signature is that of the capacities, whichever agent had them.
    scene.world.take_agent("node-a").kill9().unwrap();
    let fresh = scene.world.manifests().path().to_owned();
    scene.world.start_otherwise("node-a", |_| {
        AgentSpec::with_manifests(&crate::world::agent_binary(), &node, &fresh)
    });
    scene.world.start_agent("node-a");
    assert_eq!(pins(&node, "maps-"), maps);
    traffic.end_unharmed();
}

#[test]
fn backend_ids_and_with_them_sockets_survive_a_restart() {
    if !available() {
        return;
    }
    let (mut scene, ips) = four_pods("survive", From::Api);
    let client = scene.client.clone();
    let destinations = [(ips.0, 80).into(), (ips.1, 80).into()];
    // Of many sockets some would change their endpoint by chance.
    let sessions: Vec<_> = (0..8)
        .map(|index| {
            let to = destinations[index % 2];
            let session = client.run(|| UdpSession::open(to, PATIENCE)).unwrap();
            let endpoint = session.ask_to(b"before", to).unwrap().endpoint;
            (session, to, endpoint)
        })
        .collect();
    let before = backends(&scene.world, "node-a");
    assert_eq!(before.len(), 4 * 4, "four pods, two protocols, two families: {before:?}");
    for crash in [true, false] {
        let agent = scene.world.take_agent("node-a");
        if crash {
            agent.kill9().unwrap();
        } else {
            agent.terminate().unwrap();
        }
        scene.world.start_agent("node-a");
        // Ids and generations are in there.
        assert!(before.iter().all(|backend| backend["generation"].is_u64()), "{before:?}");
        assert_eq!(backends(&scene.world, "node-a"), before);
        for (session, to, endpoint) in &sessions {
            let answer = session.ask_to(b"after", *to).unwrap();
            assert_eq!((answer.endpoint.as_str(), answer.remote), (endpoint.as_str(), *to));
        }
    }
    // An endpoint that goes while the agent is down is left by its sockets.
    scene.world.take_agent("node-a").kill9().unwrap();
    let gone = sessions[0].2.clone();
    let left: Vec<&Pod> = scene.pods.iter().filter(|pod| pod.name() != gone).collect();
    scene.world.apply(&web("web", ips, &left)[1..]);
    scene.world.start_agent("node-a");
    for (session, to, endpoint) in &sessions {
        let answer = session.ask_to(b"later", *to).unwrap();
        assert_eq!(answer.remote, *to);
        if *endpoint == gone {
            assert_ne!(answer.endpoint, gone);
        } else {
            assert_eq!(answer.endpoint, *endpoint);
        }
    }
}

#[test]
fn a_second_agent_does_not_disturb_the_first() {
    if !available() {
        return;
    }
    let (mut scene, ips) = four_pods("second", From::Manifests);
    let traffic = Traffic::start(&scene.client, ips);
    let second = scene.world.agent_spec("node-a").start().unwrap();
    let refusal = second.wait_ready(SOON).unwrap_err().to_string();
    assert!(refusal.contains("exit status: 1"), "{refusal}");
    assert!(refusal.contains("another proxy-agent"), "{refusal}");
    // The first follows its objects as before.
    scene.served("late");
    // Once it is gone, however it went, another one can start.
    scene.world.take_agent("node-a").kill9().unwrap();
    let third = scene.world.agent_spec("node-a").start().unwrap();
    third.wait_ready(SOON).unwrap();
    assert_eq!(third.terminate().unwrap().code(), Some(0));
    traffic.end_unharmed();
}

#[test]
fn one_signal_is_enough_while_the_agent_waits_for_its_lists() {
    if !available() {
        return;
    }
    let (mut scene, ips) = four_pods("early", From::Api);
    let traffic = Traffic::start(&scene.client, ips);
    scene.world.take_agent("node-a").kill9().unwrap();
    scene.world.api().away();
    scene.world.launch_agent("node-a");
    let agent = scene.world.take_agent("node-a");
    // From then on its handlers are set up.
    agent.wait_for_line(0, SOON, |line| line.text.contains("data path opened")).unwrap();
    eventually("a try to reach the API server", || {
        let tried = agent.log().all().iter().any(|line| line.text.contains("following"));
        if tried { Ok(()) } else { Err("not yet") }
    });
    let status = agent.terminate().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    traffic.go_on(50);
    until_programmed(&scene.world, "node-a", (ips.0, 80).into(), &scene.all());
    scene.world.api().back();
    scene.world.start_agent("node-a");
    traffic.end_unharmed();
    scene.world.delete(&web("web", ips, &[])[0]);
    until_gone(&scene.world, "node-a", ips.0);
}
