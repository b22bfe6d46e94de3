//! The command line: one file a subcommand.

mod backends;
mod cleanup;
mod cluster_cidr;
mod durations;
mod flows;
mod health;
mod links;
mod node_name;
mod output;
mod plan;
mod planning;
mod privileges;
mod run;
mod services;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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

/// Entry point of the binary: runs the subcommand, prints an error with its causes, 1 on failure.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Plan(args) => plan::run(args),
        Command::Services(args) => services::run(args),
        Command::Backends(args) => backends::run(args),
        Command::Links(args) => links::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Cleanup(args) => cleanup::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
