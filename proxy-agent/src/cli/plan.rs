mod output;

use std::{io, path::PathBuf};

use anyhow::Context;

use super::{node_name::node_name, output::Format, planning::PlanArgs};
use crate::{
    plan::Planner,
    source::manifests,
    state::{Dirty, Store},
};
use output::Document;

/// Arguments of `proxy-agent plan`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Folder of Service, EndpointSlice and Node manifests (YAML or JSON).
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Name of the node to plan for: decides which endpoints are local [default: the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME", alias = "hostname-override")]
    node_name: Option<String>,
    #[command(flatten)]
    planning: PlanArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let (node_name, config) = (node_name(args.node_name.as_deref())?, args.planning.config());
    let manifests = manifests::load(args.manifests, &node_name)?;
    for problem in &manifests.problems {
        eprintln!("{problem}");
    }
    let mut store = Store::default();
    let mut dirty = Dirty::default();
    for change in manifests.into_changes() {
        dirty.merge(store.apply(change));
    }
    let mut planner = Planner::new(config);
    for problem in planner.plan(&store, &dirty).problems {
        eprintln!("{problem}");
    }
    let document = Document::new(planner.plans());
    let mut stdout = io::stdout().lock();
    let printed = match args.output {
        Format::Json => document.print_json(&mut stdout),
        Format::Table => document.print_table(&mut stdout),
    };
    match printed {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot print the plan"),
    }
}
