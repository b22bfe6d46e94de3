use std::path::PathBuf;

use clap::value_parser;

use super::kube_proxy_flags::set;
use crate::{
    config::{FerrouteConfiguration, GoDuration, MOST_FLOWS, PrivilegeChoice},
    datapath::{SourcePorts, TcMode, WorkloadLinks, XdpMode},
    logging,
};

/// The largest number of flows, as clap wants it.
const MOST: i64 = MOST_FLOWS as i64;

/// Ferroute's own flags. Each is a field of the second document of the configuration file, and counts more.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct FerrouteFlags {
    /// Follow a folder of Service, EndpointSlice and Node manifests instead of an API server.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    manifests: Option<PathBuf>,

    /// cgroup v2 directory whose processes are served [default: that of the whole node, found].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,

    /// Directory of the pinned maps and programs, on a bpffs; mounted when it is not [default:
    /// /sys/fs/bpf/ferroute].
    #[arg(long, value_name = "DIR")]
    bpffs: Option<PathBuf>,

    /// Frontends of each IP family that the maps hold.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_frontends: Option<u32>,

    /// Endpoints of each IP family that the maps hold.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_backends: Option<u32>,

    /// Places in the endpoint lists of all service ports together.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_slots: Option<u32>,

    /// Service ports that the maps hold.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_services: Option<u32>,

    /// Source ranges of load-balancer addresses, of each IP family, that the maps hold.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    max_source_ranges: Option<u32>,

    /// Confirmed flows of the packet path, of each IP family, that the maps hold: connections from outside and
    /// the like.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MOST))]
    max_flows: Option<u32>,

    /// Flows, of each IP family, whose client has not gone on after an answer: the oldest make room for others.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MOST))]
    max_new_flows: Option<u32>,

    /// Count the open sockets of each endpoint; every socket of the node pays some 40 ns for it at close.
    #[arg(long)]
    count_connections: bool,

    /// Service ports that have a metric of their own with --count-connections, those with the most open sockets
    /// [default: 100].
    #[arg(long, value_name = "N")]
    max_service_metrics: Option<usize>,

    /// Close the TCP connections of this node to an endpoint that is in no EndpointSlice of its Service any more,
    /// instead of leaving them to time out; connected UDP sockets are always closed then.
    #[arg(long)]
    close_connections_of_gone_endpoints: bool,

    /// Links to other nodes and to clients outside, `NAME` or `NAME*` [default: found by their routes].
    #[arg(long, value_name = "NAME,...")]
    uplinks: Option<String>,

    /// Whether packets of pods go through programs on the pods' links [default: auto].
    #[arg(long, value_enum, value_name = "WHEN")]
    workload_links: Option<WorkloadLinks>,

    /// How programs are attached to links [default: auto].
    #[arg(long, value_enum, value_name = "HOW")]
    tc: Option<TcMode>,

    /// Forward packets to other nodes before the kernel has made anything of them [default: off].
    #[arg(long, value_enum, value_name = "MODE")]
    xdp: Option<XdpMode>,

    /// Ports for packets that are sent in a client's place; no socket of this node may use them [default: the
    /// most below or above net.ipv4.ip_local_port_range].
    #[arg(long, value_name = "FIRST-LAST", value_parser = source_ports)]
    source_ports: Option<String>,

    /// /healthz and /livez answer 503 when a change waits for twice as long to be programmed [default: kube-proxy's
    /// syncPeriod].
    #[arg(long, value_name = "DURATION")]
    sync_period: Option<GoDuration>,

    /// Whether the agent, once it is set up, gives up the capabilities and system calls that serving does not need
    /// [default: drop].
    #[arg(long, value_enum, value_name = "WHAT")]
    privileges: Option<PrivilegeChoice>,

    /// How much to log, to standard error [default: what -v says].
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<logging::Level>,

    /// What a log line looks like [default: what --logging-format says].
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<logging::Format>,
}

impl FerrouteFlags {
    /// Writes what was given into a configuration.
    pub(super) fn apply(&self, config: &mut FerrouteConfiguration) {
        fn set_some<T: Clone>(field: &mut Option<T>, flag: Option<&T>) {
            if let Some(value) = flag {
                *field = Some(value.clone());
            }
        }
        set_some(&mut config.manifests, self.manifests.as_ref());
        set_some(&mut config.cgroup, self.cgroup.as_ref());
        set(&mut config.bpffs, self.bpffs.as_ref());
        let capacities = &mut config.capacities;
        set(&mut capacities.frontends, self.max_frontends.as_ref());
        set_some(&mut capacities.backends, self.max_backends.as_ref());
        set(&mut capacities.slots, self.max_slots.as_ref());
        set(&mut capacities.services, self.max_services.as_ref());
        set(&mut capacities.source_ranges, self.max_source_ranges.as_ref());
        set(&mut capacities.flows, self.max_flows.as_ref());
        set(&mut capacities.new_flows, self.max_new_flows.as_ref());
        config.count_connections |= self.count_connections;
        set(&mut config.max_service_metrics, self.max_service_metrics.as_ref());
        config.close_connections_of_gone_endpoints |= self.close_connections_of_gone_endpoints;
        if let Some(names) = &self.uplinks {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            config.uplinks = names.map(str::to_owned).collect();
        }
        set(&mut config.workload_links, self.workload_links.as_ref());
        set(&mut config.tc, self.tc.as_ref());
        set(&mut config.xdp, self.xdp.as_ref());
        set_some(&mut config.source_ports, self.source_ports.as_ref());
        set(&mut config.sync_period, self.sync_period.as_ref());
        set(&mut config.privileges, self.privileges.as_ref());
        set_some(&mut config.log_level, self.log_level.as_ref());
        set_some(&mut config.log_format, self.log_format.as_ref());
    }
}

fn source_ports(text: &str) -> Result<String, String> {
    text.parse::<SourcePorts>().map(|_| text.to_owned())
}
