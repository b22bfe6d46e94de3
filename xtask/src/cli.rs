//! The command line: one file a subcommand.

mod bench;
mod build;
mod check;
mod image;
mod run;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs, tests and measures Ferroute.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Build the eBPF programs and the agent that embeds them; install what that needs.
    Build(build::Args),
    /// Build, then show Services at work in network namespaces, or serve a real cluster.
    Run(run::Args),
    /// Build, then run the tests; the end-to-end ones need root.
    Test(test::Args),
    /// Format, clippy and documentation, with warnings as errors.
    Check(check::Args),
    /// Build, then make the container image, without a container engine.
    Image(image::Args),
    /// Build, then measure what the socket path costs and how fast the agent programs it; needs root.
    Bench(bench::Args),
    /// Build, then run the end-to-end tests on other kernels, in virtual machines.
    Vm(vm::Args),
}

/// Entry point of the binary: runs the subcommand, prints an error with its causes, 1 on failure.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Vm(args) => vm::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("[xtask] error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
