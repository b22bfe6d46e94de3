//! What happens while clients go on asking: an endpoint goes, another comes, the agent dies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::scenario::{SPARE, Service};
use crate::lab::{
    Agent, AgentSpec, Lab, Load, LoadReport, LoadSpec, Manifests, Place, Pod, TcpSession, Via, ask,
};

/// A change has to be seen by clients within this time.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Answers in a row without an endpoint that say that it is not used any more: with three
/// endpoints, luck explains that once in 10^17 times.
const IN_A_ROW: u32 = 100;

/// Takes the last endpoint out of `default/web` and returns how long clients still reached it.
pub(super) fn remove_endpoint(lab: &Lab, manifests: &Manifests) -> anyhow::Result<Duration> {
    let web = Service::named("default/web");
    let gone = web.endpoints.last().context("default/web has endpoints")?;
    let addresses = lab.pod(gone).addresses().both().map(|ip| json!(ip));
    edit_slices(manifests, |_, endpoints| {
        endpoints.retain(|endpoint| !addresses.contains(&endpoint["addresses"][0]));
    })?;
    let begin = Instant::now();
    let mut last_seen = begin;
    lab.pod("client").run(|| {
        for to in web.sockets() {
            let mut without = 0;
            while without < IN_A_ROW {
                let answer = ask(Via::Tcp, to).with_context(|| format!("asking {to}"))?;
                if answer.endpoint == **gone {
                    (without, last_seen) = (0, Instant::now());
                    ensure!(begin.elapsed() < SEEN_WITHIN, "{to} still leads to {gone}, which was removed");
                } else {
                    without += 1;
                }
            }
        }
        Ok(last_seen - begin)
    })
}

/// Makes the spare pod an endpoint of `default/web` and returns how long until clients reached it.
pub(super) fn add_endpoint(lab: &Lab, manifests: &Manifests) -> anyhow::Result<Duration> {
    let spare = lab.pod(SPARE);
    edit_slices(manifests, |family, endpoints| {
        let [v4, v6] = spare.addresses().both();
        endpoints.push(json!({
            "addresses": [if family == "IPv4" { v4 } else { v6 }],
            "nodeName": spare.node_name(),
            "conditions": { "ready": true, "serving": true, "terminating": false },
        }));
    })?;
    let begin = Instant::now();
    lab.pod("client").run(|| {
        for to in Service::named("default/web").sockets() {
            while ask(Via::Tcp, to).with_context(|| format!("asking {to}"))?.endpoint != SPARE {
                ensure!(begin.elapsed() < SEEN_WITHIN, "{to} does not lead to {SPARE}, which was added");
            }
        }
        Ok(begin.elapsed())
    })
}

/// Rewrites the endpoints of the slices in web.yaml; the function gets the address type.
fn edit_slices(manifests: &Manifests, edit: impl Fn(&str, &mut Vec<Value>)) -> anyhow::Result<()> {
    let mut objects = manifests.read("web.yaml")?;
    for object in objects.iter_mut().filter(|object| object["kind"] == "EndpointSlice") {
        let family = object["addressType"].as_str().unwrap_or_default().to_owned();
        let endpoints = object["endpoints"].as_array_mut().context("a slice of web.yaml has no endpoints")?;
        edit(&family, endpoints);
    }
    manifests.write("web.yaml", &objects)
}

/// What came of the load around a crash.
pub(super) struct Crash {
    pub(super) reports: Vec<(&'static str, SocketAddr, LoadReport)>,
    /// From SIGKILL to the new agent's "ready".
    pub(super) without_agent: Duration,
    pub(super) agent: Agent,
}

/// Kills the agent under load, goes on without one, and starts another.
pub(super) fn crash(lab: &Lab, outside: &Place, agent: Agent, spec: &AgentSpec) -> anyhow::Result<Crash> {
    let client = lab.pod("client");
    let [web4, web6] = Service::named("default/web").sockets();
    let [dns4, _] = Service::named("kube-system/dns").sockets();
    let sticky = || asked_endpoint(&client, Service::named("default/db").sockets()[0]);
    let sticky_before = sticky()?;
    let mut connection = client.run(|| TcpSession::connect(web4, SEEN_WITHIN)).context("connecting")?;
    let connected_to = connection.ask(b"before").context("asking on a connection")?.endpoint;

    let node_port = Service::named("default/web").node_ports(lab)[0];
    let loads = [
        ("tcp", Via::Tcp, &*client, web4),
        ("tcp", Via::Tcp, &*client, web6),
        ("udp", Via::Udp, &*client, dns4),
        ("tcp from outside", Via::Tcp, outside, node_port),
    ]
    .map(|(name, via, client, to)| (name, to, Load::start(client, LoadSpec::new(via, to))));
    let go_on = |when: &str| -> anyhow::Result<()> {
        for (name, to, load) in &loads {
            ensure!(load.wait_for_more(200, SEEN_WITHIN), "no answers from {to} ({name}) {when}");
        }
        Ok(())
    };
    go_on("before the agent was killed")?;
    let killed = Instant::now();
    agent.kill9()?;
    go_on("while no agent ran")?;
    let agent = spec.start()?;
    agent.wait_ready(super::READY_WITHIN)?;
    let without_agent = killed.elapsed();
    go_on("after the agent was started again")?;

    let still = connection.ask(b"after").context("asking on a connection from before the crash")?;
    ensure!(still.endpoint == connected_to, "a connection has changed its endpoint");
    let sticky_after = sticky()?;
    if sticky_before != sticky_after {
        bail!("session affinity: default/db led to {sticky_before} before the crash, now to {sticky_after}");
    }
    let reports = loads.map(|(name, to, load)| (name, to, load.stop())).into();
    Ok(Crash { reports, without_agent, agent })
}

fn asked_endpoint(client: &Pod, to: SocketAddr) -> anyhow::Result<String> {
    let answer = client.run(|| ask(Via::Tcp, to));
    answer.map(|answer| answer.endpoint).with_context(|| format!("asking {to}"))
}
