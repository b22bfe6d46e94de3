use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use crate::{
    datapath::{Capacities, DEFAULT_BPFFS, TcMode, WorkloadLinks, XdpMode},
    logging::{Format, Level},
};

/// What stands in `apiVersion`.
pub(super) const API_VERSION: &str = "ferroute.io/v1alpha1";
/// What stands in `kind`.
pub(super) const KIND: &str = "FerrouteConfiguration";

/// What Ferroute has beyond kube-proxy, `ferroute.io/v1alpha1`: the second document of the file. A field that is
/// missing or null has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FerrouteConfiguration {
    /// `ferroute.io/v1alpha1`.
    pub api_version: String,
    /// `FerrouteConfiguration`.
    pub kind: String,
    /// A folder of manifests to follow instead of an API server.
    pub manifests: Option<PathBuf>,
    /// Directory of the pinned maps and links.
    pub bpffs: PathBuf,
    /// cgroup v2 directory whose processes are served; null for the root of the hierarchy.
    pub cgroup: Option<PathBuf>,
    /// How much the maps hold.
    pub capacities: MapCapacities,
    /// Links to other nodes and to the outside, `NAME` or `NAME*`; none to find them.
    pub uplinks: Vec<String>,
    /// Whether packets of pods go through programs on the pods' links.
    pub workload_links: WorkloadLinks,
    /// How programs are attached to links.
    pub tc: TcMode,
    /// Forward packets to other nodes before the kernel has made anything of them.
    pub xdp: XdpMode,
    /// `FIRST-LAST`, ports for packets that are sent in a client's place; null to find them.
    pub source_ports: Option<String>,
    /// For how long flows of the packet path are kept, where that is to be other than for the kernel's.
    pub lifetimes: FlowLifetimes,
    /// Twice this long without progress is unhealthy; `0s` for what the section of kube-proxy's mode says.
    pub sync_period: GoDuration,
    /// Count the open sockets of each endpoint.
    pub count_connections: bool,
    /// Service ports that have a metric of their own where open sockets are counted: those with the most.
    pub max_service_metrics: usize,
    /// Close TCP connections of this node to endpoints that are gone.
    pub close_connections_of_gone_endpoints: bool,
    /// What the agent may still do once it is set up.
    pub privileges: PrivilegeChoice,
    /// How much to log; null for what kube-proxy's verbosity says.
    pub log_level: Option<Level>,
    /// What a log line looks like; null for what kube-proxy's format says.
    pub log_format: Option<Format>,
}

/// What the agent may still do once it is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PrivilegeChoice {
    /// What serving needs.
    #[default]
    Drop,
    /// All that it was started with.
    Keep,
}

/// Entries of maps, for each IP family where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MapCapacities {
    /// Frontends.
    pub frontends: u32,
    /// Endpoints; null for 524,288 of IPv4 and half as many of IPv6.
    pub backends: Option<u32>,
    /// Places in the endpoint lists of all service ports together.
    pub slots: u32,
    /// Service ports.
    pub services: u32,
    /// Source ranges of load-balancer addresses.
    pub source_ranges: u32,
    /// Confirmed flows of the packet path.
    pub flows: u32,
    /// Flows whose client has not gone on after an answer.
    pub new_flows: u32,
}

/// `0s` for the time of the kernel's connection tracking, that is of `conntrack` of kube-proxy's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowLifetimes {
    /// TCP, established.
    pub tcp_established: GoDuration,
    /// TCP, after one side has ended its part.
    pub tcp_close_wait: GoDuration,
    /// UDP, until the client goes on after an answer.
    pub udp: GoDuration,
    /// UDP, from then on.
    pub udp_stream: GoDuration,
}

impl Default for FerrouteConfiguration {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            manifests: None,
            bpffs: DEFAULT_BPFFS.into(),
            cgroup: None,
            capacities: MapCapacities::default(),
            uplinks: Vec::new(),
            workload_links: WorkloadLinks::default(),
            tc: TcMode::default(),
            xdp: XdpMode::default(),
            source_ports: None,
            lifetimes: FlowLifetimes::default(),
            sync_period: GoDuration::default(),
            count_connections: false,
            max_service_metrics: 100,
            close_connections_of_gone_endpoints: false,
            privileges: PrivilegeChoice::default(),
            log_level: None,
            log_format: None,
        }
    }
}

impl Default for MapCapacities {
    fn default() -> Self {
        let default = Capacities::default();
        Self {
            frontends: default.frontends,
            backends: None,
            slots: default.slots,
            services: default.services,
            source_ranges: default.source_ranges,
            flows: default.flows,
            new_flows: default.new_flows,
        }
    }
}
