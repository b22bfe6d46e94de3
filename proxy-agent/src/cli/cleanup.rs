use super::output::PinArgs;
use crate::datapath;

/// Arguments of `proxy-agent cleanup`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    pins: PinArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let bpffs = args.pins.bpffs;
    let removed = datapath::cleanup(&bpffs)?;
    for line in &removed {
        println!("removed {line}");
    }
    if removed.is_empty() {
        println!("nothing is pinned in {}", bpffs.display());
    }
    Ok(())
}
