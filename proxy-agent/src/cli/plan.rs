mod output;

use std::{fs, io, path::PathBuf};

use anyhow::Context;

use crate::{
    plan::{Planner, PlannerConfig},
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
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Output {
    /// One JSON object.
    Json,
    /// For people.
    Table,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let node_name = node_name(args.node_name)?;
    let manifests = manifests::load(args.manifests, &node_name)?;
    for problem in &manifests.problems {
        eprintln!("{problem}");
    }
    let mut store = Store::default();
    let mut dirty = Dirty::default();
    for change in manifests.into_changes() {
        dirty.merge(store.apply(change));
    }
    let mut planner = Planner::new(PlannerConfig::default());
    for problem in planner.plan(&store, &dirty).problems {
        eprintln!("{problem}");
    }
    let document = Document::new(planner.plans());
    let mut stdout = io::stdout().lock();
    let printed = match args.output {
        Output::Json => document.print_json(&mut stdout),
        Output::Table => document.print_table(&mut stdout),
    };
    match printed {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot print the plan"),
    }
}

/// The name given, or that of the host, as kube-proxy forms it: trimmed and in lower case.
fn node_name(given: Option<String>) -> anyhow::Result<String> {
    let name = match given {
        Some(name) => name,
        None => fs::read_to_string("/proc/sys/kernel/hostname")
            .context("cannot read the host name; give the node's name with --node-name")?,
    };
    let name = name.trim().to_lowercase();
    anyhow::ensure!(!name.is_empty(), "the name of the node is empty; give it with --node-name");
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_trimmed_and_lower_case() {
        assert_eq!(node_name(Some(" Node-1\n".into())).expect("a name"), "node-1");
        assert!(node_name(Some(" ".into())).is_err());
        let host = node_name(None).expect("the host's name");
        assert_eq!(host, host.trim().to_lowercase());
    }
}
