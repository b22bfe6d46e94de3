use anyhow::Result;

use crate::build;
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask build`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<()> {
    build::everything(&Workspace::find()?, Purpose::Build)?;
    Ok(())
}
