mod output;

use std::{io, path::PathBuf};

use anyhow::Context;

use super::{node_name::node_name, output::Format};
use crate::{
    plan::{NodePortAddresses, Planner, PlannerConfig},
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
    /// Name of the node to plan for: decides which endpoints are local [default: $NODE_NAME, then
    /// the host name].
    #[arg(long, value_name = "NAME", alias = "hostname-override")]
    node_name: Option<String>,
    /// Which of the node's addresses serve node ports: networks in CIDR notation, separated by commas, or the
    /// single word primary for the first of each family in the Node object [default: all].
    #[arg(long, value_name = "LIST")]
    nodeport_addresses: Option<NodePortAddresses>,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let node_name = node_name(args.node_name.as_deref())?;
    let config = PlannerConfig {
        node_port_addresses: args.nodeport_addresses.unwrap_or_default(),
        ..PlannerConfig::default()
    };
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<NodePortAddresses, clap::Error> {
        let command = Command::try_parse_from([&["plan", "--manifests", "m"], flags].concat())?;
        Ok(command.args.nodeport_addresses.unwrap_or_default())
    }

    #[test]
    fn node_port_addresses_are_a_list_or_a_word() {
        assert_eq!(parse(&[]).unwrap(), NodePortAddresses::All);
        assert_eq!(parse(&["--nodeport-addresses="]).unwrap(), NodePortAddresses::All);
        assert_eq!(parse(&["--nodeport-addresses", "primary"]).unwrap(), NodePortAddresses::Primary);
        let networks = ["192.0.2.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert_eq!(
            parse(&["--nodeport-addresses", "192.0.2.1/24,fd00::/8"]).unwrap(),
            NodePortAddresses::Cidrs(networks.into())
        );
        let error = parse(&["--nodeport-addresses", "eth0"]).unwrap_err().to_string();
        assert!(
            error.contains("--nodeport-addresses") && error.contains("\"eth0\" is not a network"),
            "{error}"
        );
    }
}
