use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench;
use crate::build;
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// What to measure.
    #[arg(value_enum, default_value = "sockets")]
    what: What,
    /// A look at everything in a minute or two, in place of the figures for the documentation.
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure with this agent; only the optimised build that `bench` starts itself is given it.
    #[arg(long, value_name = "FILE", hide = true)]
    agent: Option<PathBuf>,
}

/// A part of the data path.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum What {
    /// The socket path, and how fast the agent programs a cluster.
    Sockets,
    /// The packet path.
    Packet,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let Some(agent) = &args.agent else { return restart_optimised(args) };
    match args.what {
        What::Sockets => {
            let options = if args.quick { bench::Options::quick() } else { bench::Options::full() };
            bench::run(agent, &bench::Options { json: args.json.clone(), ..options })
        }
        What::Packet => {
            let options =
                if args.quick { bench::packet::Options::quick() } else { bench::packet::Options::full() };
            bench::packet::run(agent, &options, args.json.as_deref())
        }
    }
}

/// `cargo xtask` itself is a debug build; what measures should not add its own slowness to the figures.
fn restart_optimised(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let agent = build::everything(&workspace, Purpose::Build)?;
    let optimised = agent.with_file_name("xtask");
    let mut command = Command::new(&optimised);
    let what = match args.what {
        What::Sockets => "sockets",
        What::Packet => "packet",
    };
    command.arg("bench").arg(what).arg("--agent").arg(&agent);
    if args.quick {
        command.arg("--quick");
    }
    if let Some(json) = &args.json {
        command.arg("--json").arg(json);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", optimised.display()))
}
