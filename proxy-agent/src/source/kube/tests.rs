//! The source against a real list/watch server, over loopback.

mod harness;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use serde_json::json;
use xtask::api_server::{ApiServer, Cut, Kind};

use super::*;
use harness::{Lab, node, service, slice};

#[tokio::test]
async fn complete_lists_come_first_and_in_pages() {
    let server = ApiServer::on_loopback().unwrap();
    let services: Vec<_> = (0..1203).map(|number| service(&format!("s{number:04}"), "10.96.0.1")).collect();
    server.apply(json!(services)).unwrap();
    server.apply(json!([service("headless", "None"), slice("web-1"), node("other"), node("n1")])).unwrap();
    let mut lab = Lab::start(server).await;
    let (mut services, mut slices, mut nodes) = (0, 0, 0);
    for _ in 0..3 {
        match lab.next().await {
            Change::Services(list) => services += list.len(),
            Change::Slices(list) => slices += list.len(),
            Change::Node(node) => nodes += usize::from(node.is_some()),
            other => panic!("a single change before the complete lists: {other:?}"),
        }
    }
    assert_eq!((services, slices, nodes), (1203, 1, 1));

    lab.watching().await;
    let requests = lab.server.requests();
    let of = |path: &str, watch: bool| {
        let of_path = requests.iter().filter(|request| request.path == path);
        of_path.filter(|request| request.query.contains("watch=true") == watch).collect::<Vec<_>>()
    };
    assert_eq!(of("/api/v1/services", false).len(), 3, "three pages of at most 500");
    assert!(of("/api/v1/services", false).iter().all(|request| request.query.contains("limit=500")));
    for request in &requests {
        assert_eq!(request.method, "GET");
        let selectors: &[&str] = match request.path.as_str() {
            "/api/v1/services" => &[
                "labelSelector=!service.kubernetes.io/service-proxy-name",
                "fieldSelector=spec.clusterIP!=None",
            ],
            "/apis/discovery.k8s.io/v1/endpointslices" => &["labelSelector=!service.kubernetes.io/headless"],
            "/api/v1/nodes" => &["fieldSelector=metadata.name=n1"],
            other => panic!("no business at {other}"),
        };
        for selector in selectors {
            assert!(request.query.contains(selector), "{selector} in {request:?}");
        }
    }
    for watch in of("/api/v1/services", true) {
        assert!(watch.query.contains("allowWatchBookmarks=true"), "{watch:?}");
        assert!(watch.query.contains("timeoutSeconds="), "{watch:?}");
    }
}

#[tokio::test]
async fn nothing_of_a_kind_is_sent_before_its_list() {
    let server = ApiServer::on_loopback().unwrap();
    server.refuse(Some(503));
    let mut lab = Lab::start(server).await;
    lab.server.apply(json!([service("web", "10.96.0.1"), slice("web-1")])).unwrap();
    assert!(lab.silent(Duration::from_millis(300)).await, "the server refuses");
    lab.server.refuse(None);
    lab.until("all that is there", |seen| {
        seen.services() == [("web", "10.96.0.1")] && seen.slices() == ["web-1"] && seen.node == Some(false)
    })
    .await;
    assert!(lab.counters.lost() >= 3);
}

#[tokio::test]
async fn changes_follow_as_they_happen() {
    let mut lab = Lab::with_web().await;
    lab.server
        .apply(json!([service("new", "10.96.0.2"), service("web", "10.96.0.9"), slice("web-2")]))
        .unwrap();
    lab.server.apply(node("n1")).unwrap();
    lab.until("new and changed objects", |seen| {
        seen.services() == [("new", "10.96.0.2"), ("web", "10.96.0.9")]
            && seen.slices() == ["web-1", "web-2"]
            && seen.node == Some(true)
    })
    .await;
    lab.server.delete(Kind::Service, "default", "new");
    lab.server.delete(Kind::EndpointSlice, "default", "web-1");
    lab.server.delete(Kind::Node, "", "n1");
    lab.until("deletions", |seen| {
        seen.services() == [("web", "10.96.0.9")] && seen.slices() == ["web-2"] && seen.node == Some(false)
    })
    .await;
    assert_eq!(lab.seen.lists, 2, "changes, not lists");
}

#[tokio::test]
async fn a_service_that_another_proxy_takes_is_gone_until_it_is_given_back() {
    let mut lab = Lab::with_web().await;
    let mut taken = service("web", "10.96.0.1");
    taken["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    lab.server.apply(taken).unwrap();
    lab.until("the service gone", |seen| seen.services().is_empty()).await;
    lab.server.apply(service("web", "10.96.0.1")).unwrap();
    lab.until("the service back", |seen| seen.services() == [("web", "10.96.0.1")]).await;
}

#[tokio::test]
async fn a_bookmark_moves_the_resource_version_on() {
    let mut lab = Lab::with_web().await;
    // Only Services change, so slices learn of newer versions from bookmarks alone.
    lab.server.apply(service("new", "10.96.0.2")).unwrap();
    lab.until("the new service", |seen| seen.services().len() == 2).await;
    let before = lab.slice_watch_version();
    lab.server.send_bookmark();
    lab.server.cut_streams(Cut::Clean);
    let counted = lab.server.requests().len();
    lab.until_requests("watches again", |requests| requests[counted..].len() >= 3).await;
    assert!(lab.slice_watch_version() > before, "the slices' watch resumes from the bookmark");
    assert_eq!(lab.seen.lists, 2);
}

#[tokio::test]
async fn cut_streams_are_resumed_without_losing_an_event() {
    let mut lab = Lab::with_web().await;
    for (number, cut) in [Cut::Clean, Cut::Broken, Cut::MidLine].into_iter().enumerate() {
        lab.watching().await;
        lab.server.cut_streams(cut);
        let name = format!("s{number}");
        lab.server.apply(service(&name, "10.96.0.3")).unwrap();
        lab.until(&format!("{name} after {cut:?}"), |seen| {
            seen.services().contains(&(name.as_str(), "10.96.0.3"))
        })
        .await;
    }
    assert_eq!(lab.seen.lists, 2, "resumed, not listed again");
}

#[tokio::test]
async fn an_expired_version_lists_again_and_drops_what_has_vanished() {
    let mut lab = Lab::with_web().await;
    lab.server.away();
    lab.server.delete(Kind::Service, "default", "web");
    lab.server.apply(json!([service("other", "10.96.0.4"), slice("web-2")])).unwrap();
    lab.server.delete(Kind::EndpointSlice, "default", "web-1");
    lab.server.expire();
    lab.server.back();
    lab.until("the new lists", |seen| {
        seen.services() == [("other", "10.96.0.4")] && seen.slices() == ["web-2"]
    })
    .await;
    assert_eq!(lab.seen.lists, 4, "each list replaces all at once");
    // The same for a stream that is open.
    lab.watching().await;
    lab.server.expire();
    lab.server.apply(service("last", "10.96.0.5")).unwrap();
    lab.until("what came after", |seen| seen.services().len() == 2).await;
}

#[tokio::test]
async fn a_watch_that_is_refused_as_gone_lists_again() {
    let mut lab = Lab::with_web().await;
    let before = lab.server.requests().len();
    lab.server.refuse(Some(410));
    lab.server.cut_streams(Cut::Clean);
    // First the watches are refused, then the lists in pages: the next lists are asked for whole.
    lab.until_requests("whole lists", |requests| {
        requests[before..].iter().any(|request| {
            request.path == "/api/v1/services"
                && !request.query.contains("watch=")
                && !request.query.contains("limit=")
        })
    })
    .await;
    lab.server.delete(Kind::Service, "default", "web");
    lab.server.refuse(None);
    lab.until("the lists", |seen| seen.lists >= 3 && seen.services().is_empty()).await;
}

#[tokio::test]
async fn a_server_that_was_away_is_noticed_within_seconds() {
    let mut lab = Lab::with_web().await;
    lab.server.away();
    tokio::time::sleep(Duration::from_millis(700)).await;
    lab.server.apply(service("new", "10.96.0.2")).unwrap();
    let back = Instant::now();
    lab.server.back();
    lab.until("what was missed", |seen| seen.services().len() == 2).await;
    assert!(back.elapsed() < Duration::from_secs(3), "took {:?}", back.elapsed());
    assert_eq!(lab.seen.lists, 2, "resumed, not listed again");
}

#[tokio::test]
async fn garbage_in_a_stream_is_stepped_over() {
    let mut lab = Lab::with_web().await;
    lab.server.garbage(Kind::Service, "{\"type\":\"MODIFIED\",\"object\":{broken");
    lab.server.garbage(Kind::Service, "\u{0}\u{1}");
    lab.server.garbage(Kind::EndpointSlice, r#"{"type":"EXPLODED","object":{}}"#);
    lab.server.apply(json!([service("new", "10.96.0.2"), slice("web-2")])).unwrap();
    lab.until("what came after the garbage", |seen| {
        seen.services().len() == 2 && seen.slices() == ["web-1", "web-2"]
    })
    .await;
    assert!(lab.counters.lost() >= 2);
}

#[tokio::test]
async fn a_malformed_object_keeps_its_last_state_and_harms_no_other() {
    let malformed = |name: &str| json!({"kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": "10.96.0.7", "ports": 5}});
    let server = ApiServer::on_loopback().unwrap();
    server
        .apply(json!([malformed("bad"), service("good", "10.96.0.1"), service("turns", "10.96.0.2")]))
        .unwrap();
    let mut lab = Lab::start(server).await;
    lab.until("those that are well", |seen| {
        seen.services() == [("good", "10.96.0.1"), ("turns", "10.96.0.2")]
    })
    .await;
    assert_eq!(lab.counters.unreadable(), 1);

    lab.watching().await;
    lab.server.apply(json!([malformed("turns"), service("new", "10.96.0.3")])).unwrap();
    lab.until("the last good state", |seen| {
        seen.services() == [("good", "10.96.0.1"), ("new", "10.96.0.3"), ("turns", "10.96.0.2")]
    })
    .await;
    assert_eq!(lab.counters.unreadable(), 2);

    // A list keeps it too, and takes away only what is not there.
    lab.server.delete(Kind::Service, "default", "good");
    lab.until("a deletion", |seen| seen.services().len() == 2).await;
    lab.server.away();
    lab.server.delete(Kind::Service, "default", "new");
    lab.server.apply(service("newer", "10.96.0.4")).unwrap();
    lab.server.expire();
    lab.server.back();
    lab.until("the list", |seen| seen.services() == [("newer", "10.96.0.4"), ("turns", "10.96.0.2")]).await;

    lab.watching().await;
    lab.server.apply(service("bad", "10.96.0.7")).unwrap();
    lab.server.apply(service("turns", "10.96.0.8")).unwrap();
    lab.server.delete(Kind::Service, "default", "newer");
    lab.until("all well again", |seen| seen.services() == [("bad", "10.96.0.7"), ("turns", "10.96.0.8")])
        .await;
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    // Answers lists, then never says a word in its watches.
    let watches = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&watches);
    let address = harness::scripted(move |request| {
        if !request.contains("watch=true") {
            return Some(harness::empty_list());
        }
        counted.fetch_add(1, Ordering::SeqCst);
        None
    });
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = harness::kubeconfig(dir.path(), address);
    let (changes, mut receiver) = mpsc::channel(16);
    let timing = Timing {
        response: Duration::from_secs(5),
        watch: Duration::from_millis(200),
        silence: Duration::from_millis(100),
        ..Timing::default()
    };
    let options = harness::options(kubeconfig, timing);
    let task = tokio::spawn(follow(options, changes));
    for _ in 0..3 {
        receiver.recv().await.expect("an empty list of each kind");
    }
    let started = Instant::now();
    while watches.load(Ordering::SeqCst) < 6 {
        assert!(started.elapsed() < Duration::from_secs(10), "the hung watches are not given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(receiver);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_slowly_is_given_time() {
    let (asked, times) = std::sync::mpsc::channel();
    let address = harness::scripted(move |request| {
        if !request.contains("watch=true") {
            return Some(harness::empty_list());
        }
        let started = Instant::now();
        std::thread::sleep(Duration::from_millis(60));
        if request.contains("/services") {
            asked.send((started, Instant::now())).unwrap();
        }
        Some(harness::response("500 Internal Server Error", "overloaded"))
    });
    let dir = tempfile::tempdir().unwrap();
    let timing = Timing { short: Duration::from_millis(50), ..Timing::default() };
    let options = harness::options(harness::kubeconfig(dir.path(), address), timing);
    let (changes, receiver) = mpsc::channel(16);
    let task = tokio::spawn(follow(options, changes));
    let times = tokio::task::spawn_blocking(move || times.into_iter().take(5).collect::<Vec<_>>());
    let times = times.await.unwrap();
    let waited = times[4].0 - times[3].1;
    // 100 to 200 ms, twice that, four times, eight times.
    assert!(waited >= Duration::from_millis(700), "it came back after {waited:?}");
    drop(receiver);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_list_that_does_not_come_whole_is_tried_in_pages_again() {
    // Forgets the second page each time, and does not manage a whole list; by the third list it is well.
    let lists = AtomicUsize::new(0);
    let address = harness::scripted(move |request| {
        if request.contains("watch=true") || !request.contains("/services") {
            return Some(harness::empty_list());
        }
        if request.contains("continue=") {
            return Some(harness::response("410 Gone", ""));
        }
        let list = lists.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.contains("limit="), list != 1, "list {list}: {request}");
        Some(match list {
            0 => harness::response("200 OK", r#"{"metadata":{"resourceVersion":"5","continue":"x"}}"#),
            1 => harness::response("504 Gateway Timeout", ""),
            _ => harness::empty_list(),
        })
    });
    let dir = tempfile::tempdir().unwrap();
    let options = harness::options(harness::kubeconfig(dir.path(), address), Timing::default());
    let (changes, mut receiver) = mpsc::channel(16);
    let task = tokio::spawn(follow(options, changes));
    let listed =
        async { while !matches!(receiver.recv().await.expect("a list of Services"), Change::Services(_)) {} };
    tokio::time::timeout(Duration::from_secs(5), listed).await.expect("a list of Services within 5 s");
    drop(receiver);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn credentials_that_were_replaced_are_read_again() {
    let address = harness::scripted(|request| {
        let accepted = request.to_lowercase().contains("authorization: bearer fresh");
        Some(if accepted { harness::empty_list() } else { harness::response("401 Unauthorized", "") })
    });
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = harness::kubeconfig(dir.path(), address);
    let give = |token: &str| {
        let text = std::fs::read_to_string(&kubeconfig).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({ "token": token });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
    };
    give("stale");
    let (changes, mut receiver) = mpsc::channel(16);
    let task = tokio::spawn(follow(harness::options(kubeconfig.clone(), Timing::default()), changes));
    let nothing = tokio::time::timeout(Duration::from_millis(300), receiver.recv()).await;
    assert!(nothing.is_err(), "the token is not accepted");
    give("fresh");
    for _ in 0..3 {
        let list = tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await;
        list.expect("a list of each kind with the new token").unwrap();
    }
    drop(receiver);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_kubeconfig_that_is_none_is_fatal_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let broken = dir.path().join("broken");
    std::fs::write(&broken, "{}").unwrap();
    for path in [missing, broken] {
        let (changes, _receiver) = mpsc::channel(1);
        let options = harness::options(path.clone(), Timing::default());
        let error = follow(options, changes).await.unwrap_err();
        assert!(format!("{error:#}").contains(&path.display().to_string()), "{error:#}");
        assert!(format!("{error:#}").contains("--kubeconfig"), "{error:#}");
    }
}

#[tokio::test]
async fn it_ends_with_its_receiver() {
    let mut lab = Lab::with_web().await;
    lab.watching().await;
    lab.receiver.close();
    tokio::time::timeout(Duration::from_secs(5), lab.task).await.expect("it ends").unwrap().unwrap();
}
