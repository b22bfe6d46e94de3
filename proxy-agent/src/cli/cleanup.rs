use std::{
    io::{BufWriter, Write, stdout},
    path::Path,
};

use anyhow::bail;
use serde_json::json;

use super::output::{Format, PinArgs, print_json};
use crate::{
    datapath,
    takeover::{self, Leftovers},
};

/// Arguments of `proxy-agent cleanup`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    pins: PinArgs,

    /// Remove what kube-proxy left in iptables, nftables and IPVS, and nothing of Ferroute's.
    #[arg(long)]
    kube_proxy: bool,

    /// Only say what would be removed.
    #[arg(long, requires = "kube_proxy")]
    dry_run: bool,

    /// How to print what is kube-proxy's.
    #[arg(short, long, value_enum, default_value = "table", requires = "kube_proxy")]
    output: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.kube_proxy {
        return kube_proxy(args.dry_run, args.output);
    }
    remove(&args.pins.bpffs)
}

/// Removes what the agent has made, of which `bpffs` holds the pins, and says what that was.
pub(super) fn remove(bpffs: &Path) -> anyhow::Result<()> {
    let mut removed = datapath::cleanup(bpffs)?;
    removed.extend(takeover::release()?);
    for line in &removed {
        println!("removed {line}");
    }
    if removed.is_empty() {
        println!("nothing is pinned in {}", bpffs.display());
    }
    Ok(())
}

/// Fails when something could not be removed, or could not be looked into.
fn kube_proxy(dry_run: bool, output: Format) -> anyhow::Result<()> {
    let running = takeover::beside()?.running;
    let mut found = takeover::find()?;
    if !dry_run {
        found = takeover::remove(found)?;
    }
    match output {
        Format::Json => print_json(&json!({ "removed": !dry_run, "running": running, "found": found }))?,
        Format::Table => print(&found, dry_run)?,
    }
    if let Some(process) = running {
        eprintln!(
            "kube-proxy runs on this node (process {process}) and writes its rules again: stop it first"
        );
    }
    let unread: Vec<_> = found.unread.iter().map(ToString::to_string).collect();
    if !unread.is_empty() && !dry_run {
        bail!("{}", unread.join("\n"));
    }
    unread.iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

fn print(found: &Leftovers, dry_run: bool) -> std::io::Result<()> {
    let [removed, added, kept] =
        if dry_run { ["would remove", "would add", "would keep"] } else { ["removed", "added", "kept"] };
    let mut out = BufWriter::new(stdout().lock());
    for one in &found.remove {
        writeln!(out, "{removed} {one}")?;
    }
    for one in found.stand_ins() {
        writeln!(out, "{added} {one}")?;
    }
    for one in &found.kept {
        writeln!(out, "{kept} {one}")?;
    }
    if found.remove.is_empty() {
        writeln!(out, "nothing of kube-proxy's is here")?;
    }
    out.flush()
}
