//! The command line: one file a subcommand.

mod backends;
mod cleanup;
mod flows;
mod kube_proxy;
mod links;
mod node_name;
mod output;
mod plan;
mod run;
mod services;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Kubernetes Services with eBPF, on this node.
#[derive(Parser, Debug)]
#[command(name = "proxy-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve this node's Services until told to stop; what is programmed stays in place.
    Run(Box<run::Args>),
    /// Show what would be programmed for a folder of manifests; needs no privileges.
    Plan(plan::Args),
    /// Show the frontends that the pinned maps hold now.
    Services(output::ViewArgs),
    /// Show the endpoints that the pinned maps hold now.
    Backends(output::ViewArgs),
    /// Show the node's links as the programs see them, and what is attached to each.
    Links(output::ViewArgs),
    /// Show the flows of the packet path that the pinned maps hold now.
    Flows(flows::Args),
    /// Remove every pin and link, the node is then without service routing; or what kube-proxy left.
    Cleanup(cleanup::Args),
}

/// Entry point of the binary: runs the subcommand, or what kube-proxy would where it is called by that name;
/// prints an error with its causes, 1 on failure.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let outcome = if kube_proxy::is_called(&arguments) { kube_proxy::run(arguments) } else { run(arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> anyhow::Result<()> {
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Run(args) => {
            // Which flags were given, and not only what they come to.
            let matches = matches.subcommand().map_or(&matches, |(_, of_run)| of_run);
            run::run(*args, matches, run::Called::ProxyAgent)
        }
        Command::Plan(args) => plan::run(args),
        Command::Services(args) => services::run(args),
        Command::Backends(args) => backends::run(args),
        Command::Links(args) => links::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Cleanup(args) => cleanup::run(args),
    }
}
