//! What `cargo xtask run` shows: a cluster of network namespaces, the real agent on both of its nodes,
//! real connections to Services, and what happens to them when things change.

mod changes;
mod scenario;
mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use self::scenario::{NODES, SERVICES, SPARE};
use crate::lab::{self, Agent, AgentSpec, Lab, Manifests, Server};
use crate::progress::{say, step};

/// How long an agent may take until it has programmed the first Services.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Runs the demonstration with this agent binary. An error means that something was not as promised.
pub fn run(agent_binary: &Path) -> anyhow::Result<()> {
    lab::exit_on_ctrl_c()?;
    demonstrate(agent_binary).inspect_err(|_| lab::wait_if_stopping())?;
    say("removed: pins and links, cgroups, namespaces, temporary files");
    say("everything was as it should be");
    Ok(())
}

/// Everything but the conclusion. The lab is gone when this returns.
fn demonstrate(agent_binary: &Path) -> anyhow::Result<()> {
    let lab = step("building a cluster of network namespaces", || {
        let lab = Lab::with("demo", NODES)?;
        let pods: usize = NODES.iter().map(|(_, pods)| pods.len()).sum();
        Ok((lab, format!("{} nodes, {pods} pods", NODES.len())))
    })?;
    let _servers = step("starting servers in the pods", || {
        let servers = serve(&lab)?;
        let count = servers.len();
        Ok((servers, format!("{count} servers, TCP and UDP, IPv4 and IPv6")))
    })?;
    let manifests = lab.manifests()?;
    manifests.copy_from(&examples())?;
    let [spec, other_spec] = ["node-a", "node-b"]
        .map(|node| AgentSpec::with_manifests(agent_binary, &lab.node(node), manifests.path()));
    let [agent, other_agent] = step("starting an agent on each node, on deploy/examples", || {
        let agents = [spec.start()?, other_spec.start()?];
        for agent in &agents {
            agent.wait_ready(READY_WITHIN)?;
        }
        let peak = agents[0].rss_peak()? / 1024;
        Ok((agents, format!("ready, {} Services, {peak} KiB of memory at most", SERVICES.len())))
    })?;

    let log = agent.log();
    let agent = show_traffic(&lab, &manifests, agent, &spec).inspect_err(|_| {
        lab::wait_if_stopping();
        say(format_args!("the first agent on node-a said last:{}", log.tail(20)));
    })?;

    show(&spec, "services")?;
    end(agent, &spec).context("ending the agent of node-a")?;
    end(other_agent, &other_spec).context("ending the agent of node-b")
}

/// Requests, changes, a crash. Hands back the agent that runs after the crash.
fn show_traffic(lab: &Lab, manifests: &Manifests, agent: Agent, spec: &AgentSpec) -> anyhow::Result<Agent> {
    let outside = lab.add_outside("outside")?;
    let rows = step("asking every Service, from a pod, from a node, and from outside the cluster", || {
        let rows = traffic::ask_everything(lab, &outside);
        let requests = traffic::requests(&rows);
        Ok((rows, format!("{requests} requests")))
    })?;
    traffic::print(&rows);
    expect_none(traffic::problems(&rows))?;

    step("removing the endpoint web-3 from web.yaml", || {
        let seen = changes::remove_endpoint(lab, manifests)?;
        Ok(((), format!("no longer used {} ms after the file changed", seen.as_millis())))
    })?;
    step(&format!("adding the endpoint {SPARE} to web.yaml"), || {
        let seen = changes::add_endpoint(lab, manifests)?;
        Ok(((), format!("in use {} ms after the file changed", seen.as_millis())))
    })?;
    step("killing the agent (SIGKILL) under load, and starting it again", || {
        let crash = changes::crash(lab, &outside, agent, spec)?;
        println!();
        let mut problems = Vec::new();
        for (name, to, report) in &crash.reports {
            let (sent, failed) = (report.sent(), report.failed);
            println!(
                "    {name} {to}: {sent} requests, {failed} failed, the slowest took {:?}",
                report.slowest
            );
            if let Some(first) = report.failures.first() {
                problems.push(format!("{failed} of {sent} requests to {to} failed; the first: {first}"));
            }
        }
        println!();
        expect_none(problems)?;
        let pause = crash.without_agent.as_millis();
        Ok((crash.agent, format!("no request failed; {pause} ms without an agent")))
    })
}

fn expect_none(problems: Vec<String>) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!("not as it should be:\n  {}", problems.join("\n  "))
}

/// The manifests that the demonstration starts from.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

fn serve(lab: &Lab) -> anyhow::Result<Vec<Server>> {
    let mut servers = Vec::new();
    for service in SERVICES {
        for pod in service.endpoints {
            servers.push(lab.pod(pod).serve(service.target)?);
        }
    }
    servers.push(lab.pod(SPARE).serve(8080)?);
    Ok(servers)
}

/// Prints what a subcommand of the agent says.
fn show(spec: &AgentSpec, subcommand: &str) -> anyhow::Result<()> {
    say(format_args!("proxy-agent {subcommand}, on node-a:"));
    let output = spec.cli(&[subcommand])?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        bail!("it failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Ends an agent as an administrator would: SIGTERM, which leaves the data path, then `cleanup`.
fn end(agent: Agent, spec: &AgentSpec) -> anyhow::Result<()> {
    let status = agent.terminate()?;
    if !status.success() {
        bail!("it ended with {status} after SIGTERM");
    }
    let output = spec.cli(&["cleanup"])?;
    if !output.status.success() {
        bail!("cleanup failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
