use anyhow::Result;

use crate::check;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask check`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<()> {
    check::run(&Workspace::find()?)
}
