//! An API server that goes away, comes back, forgets, breaks off and talks nonsense.

use std::time::{Duration, Instant};

use xtask::{
    api_server::{ApiServer, Cut, Kind, Request},
    lab::{Via, available},
};

use crate::{
    helpers::{Traffic, cli, frontends, has_address, until_gone, until_logged, until_programmed, web},
    scene::Scene,
    world::{From, SOON, cluster_ips, eventually, until_answered_by, until_refused},
};

/// What "within seconds" means, for an agent that waits longer between attempts the longer nobody is there.
const SECONDS: Duration = Duration::from_secs(15);

/// The requests since an earlier look.
fn since(api: &ApiServer, mark: usize) -> Vec<Request> {
    api.requests().split_off(mark)
}

fn is_watch(request: &Request) -> bool {
    request.query.contains("watch=")
}

/// Waits until all three kinds are watched by streams that were opened after `mark`.
fn until_watched(api: &ApiServer, mark: usize) {
    eventually("three new watches", || {
        let requests = since(api, mark);
        let watched =
            |kind| requests.iter().any(|request| is_watch(request) && Kind::at(&request.path) == kind);
        let all =
            [Kind::Service, Kind::EndpointSlice, Kind::Node].into_iter().all(|kind| watched(Some(kind)));
        if all && api.open_watches() >= 3 { Ok(()) } else { Err(format!("{requests:?}")) }
    });
}

#[test]
fn services_work_while_the_api_server_is_away_and_follow_when_it_is_back() {
    if !available() {
        return;
    }
    let scene = Scene::new("away", From::Api, 2);
    let (steady, moving, deleted) = (scene.served("steady"), scene.served("moving"), scene.served("deleted"));
    let added = cluster_ips();
    let traffic = Traffic::start(&scene.client, steady);
    let mark = scene.world.agent("node-a").mark();
    scene.api().away();
    scene.world.apply(&web("moving", moving, &[&scene.pods[1]])[1..]);
    scene.world.apply(&web("added", added, &[&scene.pods[1]]));
    scene.world.delete(&web("deleted", deleted, &[])[0]);
    // It is noticed, said, and changes nothing.
    until_logged(&scene.world, "node-a", mark, &["Service", "trying again"]);
    traffic.go_on(200);
    until_answered_by(&scene.client, Via::Tcp, (moving.0, 80).into(), "web-1");
    until_answered_by(&scene.client, Via::Tcp, (deleted.0, 80).into(), "web-1");

    let back = Instant::now();
    scene.api().back();
    scene.until(moving, "web-2");
    scene.until(added, "web-2");
    until_gone(&scene.world, "node-a", deleted.0);
    assert!(back.elapsed() < SECONDS, "{:?}", back.elapsed());
    let answered = traffic.end_unharmed();
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn an_agent_may_start_before_the_api_server() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("before", From::Api, 2);
    scene.world.take_agent("node-a").terminate().unwrap();
    cli(&scene.world, "node-a", &["cleanup"]);
    let ips = cluster_ips();
    scene.world.apply(&web("web", ips, &[&scene.pods[0]]));
    scene.api().away();
    scene.world.launch_agent("node-a");
    for kind in ["Service", "EndpointSlice", "Node"] {
        until_logged(&scene.world, "node-a", 0, &[&format!("\"{kind}\""), "trying again"]);
    }
    let mark = scene.world.agent("node-a").mark();
    assert!(!is_ready(&scene, 0), "ready, without having heard of any object");
    scene.api().back();
    until_logged(&scene.world, "node-a", mark, &["\"ready\""]);
    scene.until(ips, "web-1");
}

#[test]
fn what_vanished_while_the_server_forgot_is_removed() {
    if !available() {
        return;
    }
    let scene = Scene::new("gone", From::Api, 2);
    let (steady, deleted, emptied) =
        (scene.served("steady"), scene.served("deleted"), scene.served("emptied"));
    let traffic = Traffic::start(&scene.client, steady);
    // Nothing about these deletions is ever told: history ends after them.
    scene.api().away();
    scene.world.delete(&web("deleted", deleted, &[])[0]);
    web("emptied", emptied, &[])[1..].iter().for_each(|slice| scene.world.delete(slice));
    scene.api().expire();
    scene.api().back();
    until_gone(&scene.world, "node-a", deleted.0);
    until_refused(&scene.client, Via::Tcp, (emptied.0, 80).into());
    until_refused(&scene.client, Via::Udp, (emptied.1, 80).into());

    // The same for streams that are open: 410 in the stream, and what follows is seen after the new list.
    let mark = scene.api().requests().len();
    scene.api().expire();
    scene.world.apply(&web("emptied", emptied, &[&scene.pods[1]])[1..]);
    scene.until(emptied, "web-2");
    let lists = since(scene.api(), mark);
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
        eventually("a list", || {
            let is_list = |request: &Request| !is_watch(request) && Kind::at(&request.path) == Some(kind);
            if since(scene.api(), mark).iter().any(is_list) { Ok(()) } else { Err(format!("{lists:?}")) }
        });
    }
    let answered = traffic.end_unharmed();
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn streams_may_end_anywhere() {
    if !available() {
        return;
    }
    let scene = Scene::new("cut", From::Api, 2);
    let steady = scene.served("steady");
    let ips = scene.served("web");
    let traffic = Traffic::start(&scene.client, steady);
    let mut turn = 0;
    for cut in [Cut::Clean, Cut::Broken, Cut::MidLine, Cut::MidLine, Cut::Broken, Cut::Clean] {
        let mark = scene.api().requests().len();
        scene.api().cut_streams(cut);
        // Once before the agent is back, and once after.
        for wait in [false, true] {
            if wait {
                until_watched(scene.api(), mark);
            }
            turn += 1;
            let pod = &scene.pods[turn % 2];
            scene.world.apply(&web("web", ips, &[pod])[1..]);
            scene.until(ips, pod.name());
        }
        let lists = since(scene.api(), mark).into_iter().filter(|request| !is_watch(request)).count();
        assert_eq!(lists, 0, "{cut:?}: everything was listed again, for a stream that broke off");
    }
    traffic.end_unharmed();
}

#[test]
fn nonsense_in_a_stream_is_survived() {
    if !available() {
        return;
    }
    let scene = Scene::new("nonsense", From::Api, 2);
    let steady = scene.served("steady");
    let ips = scene.served("web");
    let traffic = Traffic::start(&scene.client, steady);
    let nonsense = [
        "no JSON at all",
        "{}",
        "null",
        r#"{"type":"MODIFIED"}"#,
        r#"{"type":"SURPRISE","object":{"metadata":{"name":"web","namespace":"default"}}}"#,
        r#"{"type":"DELETED","object":{}}"#,
        r#"{"type":"ADDED","object":7}"#,
        r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is on fire"}}"#,
        "\u{fffd}\0\u{7f}",
    ];
    for (turn, line) in nonsense.into_iter().enumerate() {
        let mark = scene.api().requests().len();
        for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
            scene.api().garbage(kind, line);
        }
        let pod = &scene.pods[(turn + 1) % 2];
        scene.world.apply(&web("web", ips, &[pod])[1..]);
        scene.until(ips, pod.name());
        let requests = since(scene.api(), mark).len();
        assert!(requests < 30, "{line:?}: {requests} requests: the agent does not hold back");
    }
    let answered = traffic.end_unharmed();
    assert_eq!(answered.keys().collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn refused_requests_are_tried_again() {
    if !available() {
        return;
    }
    let scene = Scene::new("refused", From::Api, 2);
    let steady = scene.served("steady");
    let traffic = Traffic::start(&scene.client, steady);
    for status in [401, 403, 429, 500, 503] {
        let mark = scene.world.agent("node-a").mark();
        scene.api().refuse(Some(status));
        scene.api().cut_streams(Cut::Broken);
        let ips = cluster_ips();
        let name = format!("during-{status}");
        scene.world.apply(&web(&name, ips, &[&scene.pods[1]]));
        until_logged(&scene.world, "node-a", mark, &[&status.to_string()]);
        traffic.go_on(50);
        assert!(!has_address(&scene.world, "node-a", ips.0));
        scene.api().refuse(None);
        scene.until(ips, "web-2");
    }
    traffic.end_unharmed();
}

fn is_ready(scene: &Scene, mark: usize) -> bool {
    let log = scene.world.agent("node-a").log().all();
    log.iter().skip(mark).any(|line| line.message() == "ready")
}

#[test]
fn nothing_is_programmed_before_both_lists_are_complete() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("barrier", From::Api, 2);
    let ips = cluster_ips();
    scene.world.apply(&web("web", ips, &[&scene.pods[0]]));
    for (missing, there) in [(Kind::EndpointSlice, Kind::Service), (Kind::Service, Kind::EndpointSlice)] {
        scene.world.take_agent("node-a").terminate().unwrap();
        cli(&scene.world, "node-a", &["cleanup"]);
        scene.api().refuse_kind(missing, Some(503));
        scene.world.launch_agent("node-a");
        until_logged(&scene.world, "node-a", 0, &[&format!("complete list of {}", there.name())]);
        until_logged(&scene.world, "node-a", 0, &[&format!("\"{}\"", missing.name()), "trying again"]);
        let output = scene.world.agent_spec("node-a").cli(&["services", "-o", "json"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains(&ips.0.to_string()), "without {missing:?}: {text}");
        assert!(!is_ready(&scene, 0), "without {missing:?}");
        scene.api().refuse_kind(missing, None);
        until_logged(&scene.world, "node-a", 0, &["\"ready\""]);
        scene.until(ips, "web-1");
    }
}

#[test]
fn after_a_restart_the_old_state_holds_until_both_lists_are_complete() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("restart-barrier", From::Api, 2);
    let steady = scene.served("steady");
    let traffic = Traffic::start(&scene.client, steady);
    for (turn, missing) in [Kind::EndpointSlice, Kind::Service].into_iter().enumerate() {
        let name = format!("deleted-{turn}");
        let deleted = scene.served(&name);
        let (before, added) = (frontends(&scene.world, "node-a"), cluster_ips());
        scene.world.take_agent("node-a").kill9().unwrap();
        scene.world.delete(&web(&name, deleted, &[])[0]);
        scene.world.apply(&web(&format!("added-{turn}"), added, &[&scene.pods[1]]));
        scene.api().refuse_kind(missing, Some(503));
        scene.world.launch_agent("node-a");
        until_logged(&scene.world, "node-a", 0, &["complete list"]);
        until_logged(&scene.world, "node-a", 0, &[&format!("\"{}\"", missing.name()), "trying again"]);
        traffic.go_on(100);
        assert_eq!(frontends(&scene.world, "node-a"), before, "without {missing:?}");
        assert!(!is_ready(&scene, 0), "without {missing:?}");
        until_answered_by(&scene.client, Via::Tcp, (deleted.0, 80).into(), "web-1");

        scene.api().refuse_kind(missing, None);
        scene.world.agent("node-a").wait_ready(SOON).unwrap();
        assert!(!has_address(&scene.world, "node-a", deleted.0));
        until_programmed(&scene.world, "node-a", (added.0, 80).into(), &[&scene.pods[1]]);
        scene.until(added, "web-2");
    }
    traffic.end_unharmed();
}
