use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ArgGroup;

use crate::build;
use crate::demo;
use crate::kind::KindNode;
use crate::progress::say;
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask run`.
#[derive(clap::Args, Debug)]
#[command(group = ArgGroup::new("cluster").args(["kubeconfig", "kind"]))]
pub(super) struct Args {
    /// Serve the Services of this cluster on this machine, instead of the demonstration.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Serve the Services of a kind cluster on this node of it, a container on this machine.
    #[arg(long, value_name = "NODE", conflicts_with = "kubeconfig")]
    kind: Option<String>,
    /// The container engine that kind uses.
    #[arg(long, value_name = "PROGRAM", default_value = "docker")]
    engine: OsString,
    /// This machine's name in the cluster; otherwise NODE_NAME or the host name.
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    node_name: Option<String>,
    /// Serve the processes of this cgroup only; otherwise every process of the machine.
    #[arg(long, value_name = "DIR", requires = "kubeconfig")]
    cgroup: Option<PathBuf>,
    /// Where maps and links are pinned; otherwise the agent's default.
    #[arg(long, value_name = "DIR", requires = "kubeconfig")]
    bpffs: Option<PathBuf>,
    /// More arguments for `proxy-agent run`.
    #[arg(last = true, requires = "cluster")]
    rest: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let agent = build::everything(&Workspace::find()?, Purpose::Build)?;
    match (&args.kubeconfig, &args.kind) {
        (Some(kubeconfig), _) => serve(&agent, kubeconfig, args),
        (None, Some(node)) => KindNode::find(&args.engine, node)?.serve(&agent, &args.rest),
        (None, None) => demo::run(&agent),
    }
}

/// Becomes the agent: signals and the exit code are then its own.
fn serve(agent: &Path, kubeconfig: &Path, args: &Args) -> Result<()> {
    match &args.cgroup {
        Some(cgroup) => say(format_args!("attaching to the processes below {}", cgroup.display())),
        None => say(
            "attaching to the root of the cgroup v2 mount: every process of this machine, containers too, \
             sees the cluster's Services (--cgroup DIR limits it)",
        ),
    }
    say(format_args!("to stop: Ctrl-C; what is programmed stays until `{} cleanup`", agent.display()));
    let mut command = Command::new(agent);
    command.args(agent_args(kubeconfig, args));
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", agent.display()))
}

fn agent_args(kubeconfig: &Path, args: &Args) -> Vec<OsString> {
    let mut line = vec!["run".into(), "--kubeconfig".into(), kubeconfig.into()];
    if let Some(name) = &args.node_name {
        line.extend(["--node-name".into(), name.into()]);
    }
    for (flag, folder) in [("--cgroup", &args.cgroup), ("--bpffs", &args.bpffs)] {
        if let Some(folder) = folder {
            line.extend([flag.into(), folder.into()]);
        }
    }
    line.extend(args.rest.iter().cloned());
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn flags_reach_the_agent() {
        let line = "run --kubeconfig k --node-name n1 --cgroup /c --bpffs /b -- --log-level debug";
        let args = Line::parse_from(line.split(' ')).args;
        let passed = agent_args(Path::new("k"), &args);
        let expected = "run --kubeconfig k --node-name n1 --cgroup /c --bpffs /b --log-level debug";
        assert_eq!(passed, expected.split(' ').map(OsString::from).collect::<Vec<_>>());
    }

    #[test]
    fn the_demonstration_takes_no_agent_flags() {
        assert!(Line::try_parse_from(["run"]).is_ok());
        assert!(Line::try_parse_from(["run", "--cgroup", "/c"]).is_err());
        assert!(Line::try_parse_from(["run", "--", "--log-level", "debug"]).is_err());
        assert!(Line::try_parse_from(["run", "--kind", "worker", "--", "--log-level", "debug"]).is_ok());
        assert!(
            Line::try_parse_from(["run", "--kind", "worker", "--kubeconfig", "k"]).is_err(),
            "one cluster"
        );
    }
}
