use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    Configuration, GoDuration, PrivilegeChoice,
    ferroute::FerrouteConfiguration,
    kube_proxy::{Conntrack, KubeProxyConfiguration},
    meaning::EXTERNAL_IPS,
};
use crate::{
    datapath::{self, Capacities, ClusterCidr, Lifetimes, LinkOptions},
    links::Uplinks,
    logging,
    plan::{NodePortAddresses, PlannerConfig},
    privileges::{Privileges, Unexpected},
    run::Source,
    source::kube::Access,
};

/// kube-proxy's `-v` from which on each change of what is programmed is logged, and what libraries say.
const VERBOSE: [u32; 2] = [4, 8];

/// What the agent does, said in the types of those who do it: all that a file and flags can ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name of the node as it was given, if it was.
    pub node_name: Option<String>,
    /// Where objects come from.
    pub source: Source,
    /// What is planned.
    pub planner: PlannerConfig,
    /// How the data path is set up.
    pub datapath: datapath::Options,
    /// Which links are uplinks.
    pub uplinks: Uplinks,
    /// Servers for health and metrics.
    pub servers: Servers,
    /// What of the kernel's connection tracking is set at start.
    pub conntrack: Conntrack,
    /// How willingly the kernel kills the agent when memory runs out.
    pub oom_score_adj: i32,
    /// What is logged.
    pub logging: Logging,
}

/// Servers for health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Servers {
    /// `/healthz` and `/livez`; none where `--healthz-port 0` asks for that.
    pub healthz: Option<SocketAddr>,
    /// `/metrics`.
    pub metrics: SocketAddr,
    /// The agent ends when it cannot listen there.
    pub hard_fail: bool,
    /// Twice this long without progress is unhealthy.
    pub sync_period: Duration,
    /// Service ports that have a metric of their own where open sockets are counted.
    pub most_service_metrics: usize,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// How much.
    pub level: logging::Level,
    /// What a line looks like.
    pub format: logging::Format,
}

impl Settings {
    /// Of a configuration that has been checked: what is malformed nevertheless has its default.
    #[must_use]
    pub(super) fn new(configuration: &Configuration) -> Self {
        let Configuration { kube_proxy, ferroute, server } = configuration;
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let source = match &ferroute.manifests {
            Some(folder) => Source::Manifests(folder.clone()),
            None => Source::Kube(Access {
                kubeconfig: some(&kube_proxy.client_connection.kubeconfig).map(PathBuf::from),
                server: some(server),
            }),
        };
        Self {
            node_name: some(&kube_proxy.hostname_override),
            source,
            planner: planner(configuration),
            datapath: datapath_options(configuration),
            uplinks: ferroute.uplinks.join(",").parse().unwrap_or_default(),
            servers: servers(kube_proxy, ferroute),
            conntrack: kube_proxy.conntrack.clone(),
            oom_score_adj: kube_proxy.oom_score_adj,
            logging: Logging {
                level: ferroute.log_level.unwrap_or(match kube_proxy.logging.verbosity {
                    verbosity if verbosity >= VERBOSE[1] => logging::Level::Trace,
                    verbosity if verbosity >= VERBOSE[0] => logging::Level::Debug,
                    _ => logging::Level::Info,
                }),
                format: ferroute.log_format.unwrap_or(match kube_proxy.logging.format.as_str() {
                    "json" => logging::Format::Json,
                    _ => logging::Format::Text,
                }),
            },
        }
    }
}

fn planner(configuration: &Configuration) -> PlannerConfig {
    let Configuration { kube_proxy: config, ferroute, .. } = configuration;
    let addresses = config.node_port_addresses.join(",").parse().unwrap_or_default();
    PlannerConfig {
        node_port_addresses: match addresses {
            // kube-proxy's default depends on the mode (KUBE-PROXY.md 1.8).
            NodePortAddresses::All if config.mode == "nftables" => NodePortAddresses::Primary,
            addresses => addresses,
        },
        // 1.8.1: IPVS serves none, nftables where a network of nodePortAddresses has them.
        loopback_node_ports: match config.mode.as_str() {
            "ipvs" => false,
            "nftables" => true,
            _ => config.iptables.localhost_node_ports,
        },
        external_ips: config.feature_gates.get(EXTERNAL_IPS).copied().unwrap_or(true),
        keep_tcp_endpoints: ferroute.close_connections_of_gone_endpoints,
        node_address: config.bind_address.parse().ok().filter(|address: &IpAddr| !address.is_unspecified()),
    }
}

fn servers(config: &KubeProxyConfiguration, ferroute: &FerrouteConfiguration) -> Servers {
    let sync_period = ferroute.sync_period.or(match config.mode.as_str() {
        "ipvs" => config.ipvs.sync_period,
        "nftables" => config.nftables.sync_period,
        _ => config.iptables.sync_period,
    });
    Servers {
        healthz: config.healthz_bind_address.parse().ok(),
        metrics: config.metrics_bind_address.parse().unwrap_or(([127, 0, 0, 1], 10249).into()),
        hard_fail: config.bind_address_hard_fail,
        sync_period: sync_period.0,
        most_service_metrics: ferroute.max_service_metrics,
    }
}

fn datapath_options(configuration: &Configuration) -> datapath::Options {
    let (conntrack, ferroute) = (&configuration.kube_proxy.conntrack, &configuration.ferroute);
    let (default, asked) = (Capacities::default(), &ferroute.capacities);
    let lifetimes = Lifetimes::default();
    let lifetime = |own: GoDuration, kernels: GoDuration, default| own.or(kernels).or(GoDuration(default)).0;
    let own = &ferroute.lifetimes;
    datapath::Options {
        bpffs: ferroute.bpffs.clone(),
        cgroup: ferroute.cgroup.clone(),
        or_own_cgroup: false,
        capacities: Capacities {
            frontends: asked.frontends,
            slots: asked.slots,
            backends4: asked.backends.unwrap_or(default.backends4),
            backends6: asked.backends.unwrap_or(default.backends6),
            services: asked.services,
            source_ranges: asked.source_ranges,
            flows: asked.flows,
            new_flows: asked.new_flows,
            ..default
        },
        count_connections: ferroute.count_connections,
        close_connections: ferroute.close_connections_of_gone_endpoints,
        links: LinkOptions { tc: ferroute.tc, xdp: ferroute.xdp, workload: ferroute.workload_links },
        source_ports: ferroute.source_ports.as_deref().and_then(|ports| ports.parse().ok()),
        // With another detector the pods of other nodes are clients like any (KUBE-PROXY.md 1.6).
        cluster_cidr: match configuration.kube_proxy.detect_local_mode.as_str() {
            "ClusterCIDR" => configuration.kube_proxy.cluster_cidr.parse().unwrap_or_default(),
            _ => ClusterCidr::default(),
        },
        privileges: match ferroute.privileges {
            PrivilegeChoice::Drop => Privileges::Drop(Unexpected::default()),
            PrivilegeChoice::Keep => Privileges::Keep,
        },
        lifetimes: Lifetimes {
            tcp_established: lifetime(
                own.tcp_established,
                conntrack.tcp_established_timeout,
                lifetimes.tcp_established,
            ),
            tcp_close_wait: lifetime(
                own.tcp_close_wait,
                conntrack.tcp_close_wait_timeout,
                lifetimes.tcp_close_wait,
            ),
            udp: lifetime(own.udp, conntrack.udp_timeout, lifetimes.udp),
            udp_stream: lifetime(own.udp_stream, conntrack.udp_stream_timeout, lifetimes.udp_stream),
        },
    }
}
