use crate::plan::{NodePortAddresses, PlannerConfig};

/// Arguments of every subcommand that plans.
#[derive(clap::Args, Debug)]
pub(super) struct PlanArgs {
    /// Which of the node's addresses serve node ports: networks in CIDR notation, separated by commas, or the
    /// single word primary for the first of each family in the Node object [default: all].
    #[arg(long, value_name = "LIST")]
    nodeport_addresses: Option<NodePortAddresses>,
}

impl PlanArgs {
    /// What the planner is to be told.
    pub(super) fn config(&self) -> PlannerConfig {
        PlannerConfig {
            node_port_addresses: self.nodeport_addresses.clone().unwrap_or_default(),
            ..PlannerConfig::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        args: PlanArgs,
    }

    fn parse(flags: &[&str]) -> Result<NodePortAddresses, clap::Error> {
        let command = Command::try_parse_from([&["plan"], flags].concat())?;
        Ok(command.args.config().node_port_addresses)
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
