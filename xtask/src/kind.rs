//! The agent on a node of a kind cluster, which is a container with a systemd of its own: `cargo xtask run --kind NODE`.
//! For work on the agent; a cluster is served by deploy/kubernetes/overlays/kind.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::progress::{capture, say, step};

/// Where the agent and its kubeconfig are put on the node.
const AGENT: &str = "/usr/local/bin/proxy-agent";
const KUBECONFIG: &str = "/run/ferroute/kubeconfig";
/// The unit that the agent runs as there.
const UNIT: &str = "ferroute";
/// kind's labels of its containers.
const CLUSTER: &str = "io.x-k8s.kind.cluster";
const ROLE: &str = "io.x-k8s.kind.role";

/// A node, and the container engine that it runs in.
#[derive(Debug)]
pub struct KindNode<'a> {
    engine: &'a OsStr,
    name: &'a str,
    cluster: String,
}

impl<'a> KindNode<'a> {
    /// `engine` is docker, podman or nerdctl.
    ///
    /// # Errors
    /// When there is no such container, or it is no node of a kind cluster.
    pub fn find(engine: &'a OsStr, name: &'a str) -> Result<Self> {
        let format = format!("{{{{index .Config.Labels \"{CLUSTER}\"}}}}");
        let cluster = capture(Command::new(engine).args([
            "inspect",
            "--type",
            "container",
            "--format",
            &format,
            name,
        ]))?;
        let cluster = cluster.trim();
        if cluster.is_empty() || cluster == "<no value>" {
            bail!(
                "the container {name} is no node of a kind cluster: `{} ps --filter label={CLUSTER}` lists those",
                engine.display()
            );
        }
        Ok(Self { engine, name, cluster: cluster.to_owned() })
    }

    /// Puts the agent there, in place of one from before, and returns once it serves the cluster's Services.
    pub fn serve(&self, agent: &Path, rest: &[OsString]) -> Result<()> {
        let kubeconfig = self.kubeconfig()?;
        step(&format!("the agent to {}", self.name), || {
            self.write(KUBECONFIG, &kubeconfig)?;
            capture(self.command("cp").arg(agent).arg(format!("{}:{AGENT}", self.name)))?;
            Ok(((), format!("{AGENT}, {KUBECONFIG}")))
        })?;
        step(&format!("the unit {UNIT} on {}", self.name), || {
            // There need not be one from before.
            let _stopped = capture(self.exec().args(["systemctl", "stop", UNIT]));
            // Of type notify: the command returns when the agent says that it is ready.
            let mut start = self.exec();
            start.args(["systemd-run", "--quiet", "--collect", "--property=Type=notify"]);
            start.args([&format!("--unit={UNIT}"), "--", AGENT, "run", "--kubeconfig", KUBECONFIG]);
            let started = capture(start.args(["--node-name", self.name]).args(rest));
            started.map_err(|error| {
                match capture(self.exec().args(["journalctl", "--unit", UNIT, "--lines=30"])) {
                    Ok(log) => error.context(format!("the agent said last:\n{log}")),
                    Err(_) => error,
                }
            })?;
            Ok(((), "ready".to_owned()))
        })?;
        print!("{}", capture(self.exec().args([AGENT, "services"]))?);
        let exec = format!("{} exec {}", self.engine.display(), self.name);
        say(format_args!("its log: {exec} journalctl --follow --unit {UNIT}"));
        say(format_args!("to stop: {exec} systemctl stop {UNIT}; to remove: {exec} {AGENT} cleanup"));
        Ok(())
    }

    /// That of the cluster's administrator: a worker's own may not read EndpointSlices.
    fn kubeconfig(&self) -> Result<String> {
        let filters = [format!("label={CLUSTER}={}", self.cluster), format!("label={ROLE}=control-plane")];
        let mut ps = self.command("ps");
        ps.args(["--filter", &filters[0], "--filter", &filters[1], "--format", "{{.Names}}"]);
        let planes = capture(&mut ps)?;
        let plane = planes.lines().map(str::trim).find(|name| !name.is_empty());
        let plane =
            plane.with_context(|| format!("no control plane of the kind cluster {} runs", self.cluster))?;
        capture(self.command("exec").args([plane, "cat", "/etc/kubernetes/admin.conf"]))
    }

    /// Makes a file that only root can read.
    fn write(&self, path: &str, content: &str) -> Result<()> {
        let script = "umask 077; mkdir -p \"$(dirname \"$0\")\"; cat > \"$0\"";
        let mut exec = self.command("exec");
        exec.args(["--interactive", self.name, "sh", "-c", script, path]).stdin(Stdio::piped());
        let mut child = exec.spawn().with_context(|| format!("starting {}", self.engine.display()))?;
        let mut stdin = child.stdin.take().context("a pipe to the engine")?;
        stdin.write_all(content.as_bytes()).with_context(|| format!("writing {path} on {}", self.name))?;
        drop(stdin);
        let status = child.wait().context("waiting for the engine")?;
        if !status.success() {
            bail!("writing {path} on {} failed ({status})", self.name);
        }
        Ok(())
    }

    fn exec(&self) -> Command {
        let mut command = self.command("exec");
        command.arg(self.name);
        command
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.engine);
        command.arg(subcommand);
        command
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// Stands in for docker, with one cluster of two nodes: says what it was asked for, and does it in a folder.
    const ENGINE: &str = r#"#!/bin/sh -eu
folder=$(dirname "$0")
echo "$*" >> "$folder/asked"
case "$*" in
    "inspect "*" worker") echo test ;;
    "inspect "*" database") echo "<no value>" ;;
    inspect*) echo "no such container" >&2; exit 1 ;;
    ps*cluster=test*role=control-plane*) echo plane ;;
    "exec plane cat /etc/kubernetes/admin.conf") echo "server: plane" ;;
    "exec --interactive worker sh -c "*) cat > "$folder/kubeconfig" ;;
    cp*) cp "$2" "$folder/agent" ;;
    "exec worker systemd-run "*) [ ! -e "$folder/broken" ] ;;
    "exec worker journalctl "*) echo "cannot load the programs" ;;
    *) ;;
esac
"#;

    struct Engine(TempDir);

    impl Engine {
        fn new() -> Self {
            let engine = Self(tempfile::tempdir().unwrap());
            fs::write(engine.path("docker"), ENGINE).unwrap();
            fs::set_permissions(engine.path("docker"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(engine.path("built"), "the agent").unwrap();
            engine
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn serve(&self, node: &str) -> Result<()> {
            let program = self.path("docker");
            let rest = ["--log-level".into(), "debug".into()];
            KindNode::find(program.as_os_str(), node)?.serve(&self.path("built"), &rest)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }
    }

    #[test]
    fn the_agent_is_started_with_the_clusters_kubeconfig() {
        let engine = Engine::new();
        engine.serve("worker").unwrap();
        assert_eq!(engine.read("agent"), "the agent");
        assert_eq!(engine.read("kubeconfig"), "server: plane\n");
        let asked = engine.read("asked");
        let started = asked.lines().find(|line| line.contains("systemd-run")).unwrap();
        let run =
            "-- /usr/local/bin/proxy-agent run --kubeconfig /run/ferroute/kubeconfig --node-name worker";
        assert!(started.ends_with(&format!("{run} --log-level debug")), "{started}");
        let at = |what: &str| asked.find(what).unwrap();
        assert!(at("systemctl stop") < at("systemd-run"), "one agent at a time: {asked}");
    }

    #[test]
    fn an_agent_that_does_not_start_says_why() {
        let engine = Engine::new();
        fs::write(engine.path("broken"), "").unwrap();
        let error = format!("{:#}", engine.serve("worker").unwrap_err());
        assert!(error.contains("cannot load the programs"), "{error}");
    }

    #[test]
    fn other_containers_are_left_alone() {
        let engine = Engine::new();
        let error = format!("{:#}", engine.serve("database").unwrap_err());
        assert!(error.contains("no node of a kind cluster"), "{error}");
        assert!(engine.serve("none").is_err());
        assert!(!engine.path("agent").exists());
    }
}
