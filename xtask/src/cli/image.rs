use anyhow::Result;

use crate::build;
use crate::image;
use crate::progress::say;
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask image`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The image's name and tag.
    #[arg(long, value_name = "NAME:TAG", default_value = "ferroute:dev")]
    tag: String,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::find()?;
    let agent = build::everything(&workspace, Purpose::Build)?;
    let image = image::build(&workspace, &agent, &args.tag)?;
    say(format_args!("into a kind cluster: kind load image-archive {}", image.archive.display()));
    say(format_args!("onto a node: ctr --namespace k8s.io images import {}", image.archive.display()));
    Ok(())
}
