use std::time::Duration;

use anyhow::Result;

use crate::vm;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask vm`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Kernel series such as 5.10; otherwise every one that is tested.
    kernels: Vec<String>,
    /// How long one kernel may take.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Arguments for the test programs, such as the name of a test.
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let options = vm::Options {
        kernels: args.kernels.clone(),
        arguments: args.rest.clone(),
        timeout: Duration::from_secs(args.minutes * 60),
    };
    vm::run(&Workspace::find()?, &options)
}
