//! A folder of manifests that people and tools write to, not always well.

use std::{fs, net::Ipv4Addr, os::unix::fs::symlink, path::Path};

use serde_json::{Value, json};
use xtask::lab::{
    AgentSpec, Manifests, Pod, Via, ask, available,
    objects::{list, service},
};

use crate::{
    helpers::{Traffic, frontends, has_address, small, until_gone, until_logged, until_programmed, web},
    scene::Scene,
    world::{From, SOON, agent_binary, answers, cluster_ips, until_answered_by, until_refused},
};

fn ip() -> Ipv4Addr {
    cluster_ips().0
}

fn yaml(objects: &[Value]) -> String {
    // JSON is YAML; what matters here are documents and lines.
    objects.iter().map(|object| format!("---\n{}\n", serde_json::to_string_pretty(object).unwrap())).collect()
}

impl Scene {
    fn folder(&self) -> &Manifests {
        self.world.manifests()
    }

    fn write(&self, file: &str, text: &str) {
        self.folder().write_text(file, text).unwrap();
    }

    fn mark(&self) -> usize {
        self.world.agent("node-a").mark()
    }

    fn logged(&self, mark: usize, words: &[&str]) {
        until_logged(&self.world, "node-a", mark, words);
    }

    fn served_by(&self, ip: Ipv4Addr, pods: &[&Pod]) {
        until_programmed(&self.world, "node-a", (ip, 80).into(), pods);
        let seen = answers(&self.client, Via::Tcp, (ip, 80).into(), 3);
        assert!(seen.keys().all(|name| pods.iter().any(|pod| pod.name() == name)), "{seen:?}");
    }
}

#[test]
fn a_broken_file_keeps_its_last_good_state() {
    if !available() {
        return;
    }
    let scene = Scene::new("broken", From::Manifests, 2);
    let (steady, ip) = (scene.served("steady"), ip());
    let traffic = Traffic::start(&scene.client, steady);
    scene.write("web.yaml", &yaml(&small("web", ip, &[&scene.pods[0]])));
    scene.served_by(ip, &[&scene.pods[0]]);
    let good = yaml(&small("web", ip, &[&scene.pods[1]]));
    let lines = good.lines().count();
    let broken = [
        // Each with the line on which it goes wrong.
        (format!("{good}---\nkind: Service\n\tname: tabs\n"), lines + 3),
        (format!("{good}---\nkind: [1, 2\nname: web\n"), lines + 2),
        (format!("{good}---\n- just\n- a list\n"), lines + 2),
        (good.replacen("\"Service\"", "\"Service", 1), 0),
    ];
    for (text, line) in broken {
        let mark = scene.mark();
        scene.write("web.yaml", &text);
        scene.logged(mark, &["web.yaml:", "last good state stays"]);
        let said = until_logged(&scene.world, "node-a", mark, &["web.yaml:"]).text;
        // Parsers notice an open bracket or quote where the next thing begins.
        let near = (line..line + 3).any(|line| said.contains(&format!("web.yaml:{line}:")));
        assert!(near || line == 0, "not near line {line}: {said}");
        scene.served_by(ip, &[&scene.pods[0]]);
        // Other files are followed meanwhile.
        scene.until_all_is_seen();
    }
    scene.write("web.yaml", &good);
    scene.served_by(ip, &[&scene.pods[1]]);
    // A file that is emptied is one that somebody is about to write.
    let mark = scene.mark();
    scene.write("web.yaml", "");
    scene.logged(mark, &["web.yaml:", "empty"]);
    scene.served_by(ip, &[&scene.pods[1]]);
    traffic.end_unharmed();
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    if !available() {
        return;
    }
    let scene = Scene::new("half-written", From::Manifests, 2);
    let ips = cluster_ips();
    // Service and slices in one file: half of it would be a Service without endpoints.
    scene.folder().write("web.yaml", &web("web", ips, &[&scene.pods[0]])).unwrap();
    scene.until(ips, "web-1");
    let traffic = Traffic::start(&scene.client, ips);
    for turn in 0..6 {
        let pod = &scene.pods[(turn + 1) % 2];
        let halfway = || traffic.go_on(40);
        scene.folder().write_slowly("web.yaml", &web("web", ips, &[pod]), halfway).unwrap();
        scene.until(ips, pod.name());
    }
    traffic.end_unharmed();
}

#[test]
fn objects_of_a_removed_file_are_gone() {
    if !available() {
        return;
    }
    let scene = Scene::new("removed", From::Manifests, 2);
    let [one, two, three] = [ip(), ip(), ip()];
    let objects: Vec<Value> = [("one", one), ("two", two)]
        .into_iter()
        .flat_map(|(name, ip)| small(name, ip, &[&scene.pods[0]]))
        .collect();
    scene.folder().write("all.yaml", &objects).unwrap();
    scene.folder().write("three.yml", &small("three", three, &[&scene.pods[1]])).unwrap();
    scene.served_by(one, &[&scene.pods[0]]);
    scene.served_by(two, &[&scene.pods[0]]);
    scene.served_by(three, &[&scene.pods[1]]);
    // An object that is left out of its file,
    scene.folder().write("all.yaml", &objects[2..]).unwrap();
    until_gone(&scene.world, "node-a", one);
    scene.served_by(two, &[&scene.pods[0]]);
    // a file that is removed,
    scene.folder().remove("all.yaml").unwrap();
    until_gone(&scene.world, "node-a", two);
    // and one that is given a name that does not count, and its name back.
    let [file, away] = ["three.yml", "three.yml.bak"].map(|name| scene.folder().path().join(name));
    fs::rename(&file, &away).unwrap();
    until_gone(&scene.world, "node-a", three);
    fs::rename(&away, &file).unwrap();
    scene.served_by(three, &[&scene.pods[1]]);
}

#[test]
fn a_malformed_object_spoils_no_other() {
    if !available() {
        return;
    }
    let scene = Scene::new("malformed", From::Manifests, 2);
    let [bad, good] = [ip(), ip()];
    let both = |pod: &Pod| -> Vec<Value> {
        small("bad", bad, &[pod]).into_iter().chain(small("good", good, &[pod])).collect()
    };
    let mut objects = both(&scene.pods[1]);
    objects[0]["spec"]["ports"][0]["port"] = json!("abc");
    let mark = scene.mark();
    scene.write("web.yaml", &yaml(&objects));
    let text = fs::read_to_string(scene.folder().path().join("web.yaml")).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("abc")).unwrap();
    scene.logged(mark, &[&format!("web.yaml:{line}:"), "Service default/bad", "skipped"]);
    scene.served_by(good, &[&scene.pods[1]]);
    assert!(!has_address(&scene.world, "node-a", bad));

    scene.write("web.yaml", &yaml(&both(&scene.pods[0])));
    scene.served_by(bad, &[&scene.pods[0]]);
    // Now there is a last good version of it, and of its slice.
    let mut objects = both(&scene.pods[1]);
    objects[0]["spec"]["ports"][0]["port"] = json!("abc");
    objects[1]["endpoints"] = json!("none");
    let mark = scene.mark();
    scene.write("web.yaml", &yaml(&objects));
    scene.logged(mark, &["EndpointSlice default/bad", "last good version stays"]);
    scene.served_by(good, &[&scene.pods[1]]);
    scene.served_by(bad, &[&scene.pods[0]]);
    // Values that cannot be, in a Service that can be read.
    for (index, port) in [0, 70_000, -1].into_iter().enumerate() {
        let (name, ip) = (format!("ports-{index}"), ip());
        let mut objects = small(&name, ip, &[&scene.pods[0]]);
        let ports = objects[0]["spec"]["ports"].as_array_mut().unwrap();
        ports.push(json!({"name": "impossible", "port": port, "protocol": "TCP"}));
        let mark = scene.mark();
        scene.write(&format!("{name}.yaml"), &yaml(&objects));
        scene.logged(mark, &[&format!("default/{name}"), &format!("spec.ports[1].port {port}")]);
        scene.served_by(ip, &[&scene.pods[0]]);
    }
    // What is no object of ours at all.
    let mark = scene.mark();
    let stray = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default"}});
    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let late = ip();
    let objects: Vec<_> = [stray, other].into_iter().chain(small("late", late, &[&scene.pods[0]])).collect();
    scene.write("late.yaml", &yaml(&objects));
    scene.logged(mark, &["late.yaml:", "no metadata.name"]);
    scene.served_by(late, &[&scene.pods[0]]);
}

#[test]
fn lists_and_json_count() {
    if !available() {
        return;
    }
    let scene = Scene::new("forms", From::Manifests, 2);
    let ips = [ip(), ip(), ip(), ip()];
    let objects = |index: usize| small(&format!("web-{index}"), ips[index], &[&scene.pods[index % 2]]);
    scene.folder().write("list.yaml", &[list(objects(0).to_vec())]).unwrap();
    scene.write("one.json", &serde_json::to_string(&list(objects(1).to_vec())).unwrap());
    let [service, slice] = objects(2);
    scene.write("two.json", &format!("{service}\n{slice}\n"));
    // As the API server answers: items say nothing of their kind.
    let [mut service, mut slice] = objects(3);
    for object in [&mut service, &mut slice] {
        let object = object.as_object_mut().unwrap();
        object.remove("kind");
        object.remove("apiVersion");
    }
    let typed = |kind: &str, version: &str, item: Value| json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": [item]});
    let lists =
        [typed("ServiceList", "v1", service), typed("EndpointSliceList", "discovery.k8s.io/v1", slice)];
    scene.folder().write("typed.yml", &lists).unwrap();
    for (index, ip) in ips.into_iter().enumerate() {
        scene.served_by(ip, &[&scene.pods[index % 2]]);
    }
    // An item that is left out of a list is gone.
    scene.folder().write("list.yaml", &[list(objects(0)[1..].to_vec())]).unwrap();
    until_gone(&scene.world, "node-a", ips[0]);
}

#[test]
fn an_object_in_two_files_is_the_one_of_the_first() {
    if !available() {
        return;
    }
    let scene = Scene::new("twice", From::Manifests, 2);
    let ip = ip();
    scene.folder().write("b.yaml", &small("web", ip, &[&scene.pods[1]])).unwrap();
    scene.served_by(ip, &[&scene.pods[1]]);
    let mark = scene.mark();
    scene.folder().write("a.yaml", &small("web", ip, &[&scene.pods[0]])).unwrap();
    scene.served_by(ip, &[&scene.pods[0]]);
    scene.logged(mark, &["b.yaml", "a.yaml", "default/web"]);
    // What the other file says does not matter until the first is gone.
    scene.folder().write("b.yaml", &small("web", ip, &[])).unwrap();
    scene.until_all_is_seen();
    scene.served_by(ip, &[&scene.pods[0]]);
    scene.folder().write("b.yaml", &small("web", ip, &[&scene.pods[1]])).unwrap();
    scene.folder().remove("a.yaml").unwrap();
    scene.served_by(ip, &[&scene.pods[1]]);
}

#[test]
fn the_older_of_two_services_has_the_address() {
    if !available() {
        return;
    }
    let scene = Scene::new("claims", From::Manifests, 2);
    let ip = ip();
    let of_age = |name: &str, year: u16, pod: &Pod| {
        let [mut service, slice] = small(name, ip, &[pod]);
        service["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
        [service, slice]
    };
    let (young, old) = (of_age("a-young", 2025, &scene.pods[0]), of_age("b-old", 2020, &scene.pods[1]));
    scene.world.apply(&young);
    scene.served_by(ip, &[&scene.pods[0]]);
    // It does not matter who came first, nor whose name does.
    let mark = scene.mark();
    scene.world.apply(&old);
    scene.served_by(ip, &[&scene.pods[1]]);
    scene.logged(mark, &["default/a-young", "default/b-old", &ip.to_string(), "older"]);
    let owners: Vec<_> = frontends(&scene.world, "node-a")
        .iter()
        .filter(|frontend| frontend["address"] == *ip.to_string())
        .map(|frontend| frontend["service"].clone())
        .collect();
    assert_eq!(owners, ["default/b-old"]);
    // The loser is followed, without effect, and takes over as it is then.
    scene.world.apply(&of_age("a-young", 2025, &scene.pods[1])[1..]);
    scene.world.apply(&of_age("b-old", 2020, &scene.pods[0])[1..]);
    scene.served_by(ip, &[&scene.pods[0]]);
    scene.world.delete(&old[0]);
    scene.served_by(ip, &[&scene.pods[1]]);
    scene.world.apply(&old[..1]);
    scene.served_by(ip, &[&scene.pods[0]]);
}

#[test]
fn a_port_that_a_service_has_twice_is_that_of_the_first() {
    if !available() {
        return;
    }
    let scene = Scene::new("duplicate", From::Manifests, 2);
    let ip = ip();
    let twice = service("default", "web")
        .cluster_ip(ip)
        .port("first", "TCP", 80, 8080)
        .port("second", "TCP", 80, 8080)
        .port("udp", "UDP", 80, 8080)
        .build();
    let port = |name: &str, pod: &Pod, protocol: &str| {
        xtask::lab::objects::slice("default", name, "web")
            .port(name, protocol, 8080)
            .endpoint(pod.endpoint4())
            .build()
    };
    let slices = [
        port("first", &scene.pods[0], "TCP"),
        port("second", &scene.pods[1], "TCP"),
        port("udp", &scene.pods[1], "UDP"),
    ];
    let mark = scene.mark();
    scene.world.apply(&slices);
    scene.world.apply(&[twice]);
    until_answered_by(&scene.client, Via::Tcp, (ip, 80).into(), "web-1");
    until_answered_by(&scene.client, Via::Udp, (ip, 80).into(), "web-2");
    assert_eq!(answers(&scene.client, Via::Tcp, (ip, 80).into(), 30).len(), 1);
    scene.logged(mark, &["default/web", "spec.ports[1]"]);
}

#[test]
fn a_config_map_is_swapped_at_once() {
    if !available() {
        return;
    }
    // As the kubelet lays it out: every file is a link through ..data, which is replaced.
    let scene = Scene::new("config-map", From::Manifests, 2);
    let ips = cluster_ips();
    let root = scene.folder().path().to_owned();
    let version = |folder: &str, pod: &Pod| {
        let path = root.join(folder);
        fs::create_dir(&path).unwrap();
        let [service, v4, v6] = web("web", ips, &[pod]);
        for (file, object) in [("service.yaml", service), ("v4.yaml", v4), ("v6.json", v6)] {
            fs::write(path.join(file), object.to_string()).unwrap();
        }
    };
    let swap = |folder: &str| {
        symlink(folder, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    };
    version("..2026_01", &scene.pods[0]);
    swap("..2026_01");
    for file in ["service.yaml", "v4.yaml", "v6.json"] {
        symlink(Path::new("..data").join(file), root.join(file)).unwrap();
    }
    scene.until(ips, "web-1");
    let traffic = Traffic::start(&scene.client, ips);
    for turn in 2..8 {
        let (old, new) = (format!("..2026_0{}", turn - 1), format!("..2026_0{turn}"));
        let pod = &scene.pods[(turn + 1) % 2];
        version(&new, pod);
        swap(&new);
        fs::remove_dir_all(root.join(old)).unwrap();
        scene.until(ips, pod.name());
    }
    traffic.end_unharmed();
    fs::remove_file(root.join("v4.yaml")).unwrap();
    until_refused(&scene.client, Via::Tcp, (ips.0, 80).into());
}

#[test]
fn a_folder_may_be_empty_or_go_away_but_must_be_there_at_the_start() {
    if !available() {
        return;
    }
    let mut scene = Scene::new("folders", From::Manifests, 1);
    let node = scene.node();
    scene.world.take_agent("node-a").terminate().unwrap();
    let outer = tempfile::tempdir().unwrap();
    let missing = outer.path().join("missing");
    let spec = AgentSpec::with_manifests(&agent_binary(), &node, &missing);
    let refusal = spec.start().unwrap().wait_ready(SOON).unwrap_err().to_string();
    for word in ["exit status: 1", missing.to_str().unwrap()] {
        assert!(refusal.contains(word), "{word:?} is missing: {refusal}");
    }

    fs::create_dir(&missing).unwrap();
    scene.world.start_otherwise("node-a", |_| spec);
    scene.world.start_agent("node-a");
    let ip = ip();
    let objects = yaml(&small("web", ip, &[&scene.pods[0]]));
    fs::write(missing.join("web.yaml"), &objects).unwrap();
    scene.served_by(ip, &[&scene.pods[0]]);

    // When the folder goes later, what is programmed stays; when it is back, so is what is in it.
    let (away, mark) = (outer.path().join("away"), scene.mark());
    fs::rename(&missing, &away).unwrap();
    scene.logged(mark, &[missing.to_str().unwrap(), "last state stays"]);
    scene.served_by(ip, &[&scene.pods[0]]);
    fs::remove_file(away.join("web.yaml")).unwrap();
    fs::rename(&away, &missing).unwrap();
    until_gone(&scene.world, "node-a", ip);
    let gone = scene.client.run(|| ask(Via::UdpConnected, (ip, 81).into())).unwrap_err();
    assert!(!gone.refused() || gone.step != xtask::lab::Step::Connect, "{gone}");
}
