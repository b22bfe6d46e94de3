use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::value_parser;
use tracing::{info, warn};

use super::{
    cluster_cidr::ClusterCidrArgs, durations::LifetimeArgs, health::HealthArgs, node_name::node_name,
    planning::PlanArgs, privileges::PrivilegeArgs,
};
use crate::{
    datapath::{
        self, Capacities, DEFAULT_BPFFS, Datapath, LinkOptions, SourcePorts, TcMode, WorkloadLinks, XdpMode,
    },
    links::Uplinks,
    logging, observe,
    privileges::{Duty, on_refusal, warn_of},
    run::{self, Counters, Source},
    takeover,
};

/// The kernel makes no hash map of more than 2^27 entries, and a flow is two.
const MOST_FLOWS: i64 = 1 << 26;

/// Arguments of `proxy-agent run`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Kubeconfig of the API server to follow [default: the service account of the pod].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Follow a folder of Service, EndpointSlice and Node manifests instead of an API server.
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    manifests: Option<PathBuf>,

    /// Name of this node's Node object [default: the host name].
    #[arg(long, env = "NODE_NAME", alias = "hostname-override", value_name = "NAME")]
    node_name: Option<String>,

    #[command(flatten)]
    planning: PlanArgs,

    /// cgroup v2 directory whose processes are served [default: that of the whole node, found].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,

    /// Directory of the pinned maps and programs, on a bpffs; mounted when it is not.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,

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
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MOST_FLOWS))]
    max_flows: Option<u32>,

    /// Flows, of each IP family, whose client has not gone on after an answer: the oldest make room for others.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MOST_FLOWS))]
    max_new_flows: Option<u32>,

    #[command(flatten)]
    lifetimes: LifetimeArgs,

    #[command(flatten)]
    cluster_cidr: ClusterCidrArgs,

    /// Count the open sockets of each endpoint; every socket of the node pays some 40 ns for it at close.
    #[arg(long)]
    count_connections: bool,

    /// Links to other nodes and to clients outside, `NAME` or `NAME*` [default: found by their routes].
    #[arg(long, value_name = "NAME,...", default_value = "", hide_default_value = true)]
    uplinks: Uplinks,

    /// Whether packets of pods go through programs on the pods' links.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    workload_links: WorkloadLinks,

    /// How programs are attached to links.
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    tc: TcMode,

    /// Forward packets to other nodes before the kernel has made anything of them.
    #[arg(long, value_enum, value_name = "MODE", default_value = "off")]
    xdp: XdpMode,

    /// Ports for packets that are sent in a client's place; no socket of this node may use them [default: the
    /// most below or above net.ipv4.ip_local_port_range].
    #[arg(long, value_name = "FIRST-LAST")]
    source_ports: Option<SourcePorts>,

    #[command(flatten)]
    privileges: PrivilegeArgs,

    #[command(flatten)]
    health: HealthArgs,

    /// How much to log, to standard error.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    log_level: logging::Level,

    /// What a log line looks like.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: logging::Format,
}

pub(super) fn run(args: Args) -> Result<()> {
    datapath::return_large_buffers();
    logging::init(args.log_level, args.log_format);
    let node_name = node_name(args.node_name.as_deref())?;
    let (options, config, observed) = (args.datapath(), args.planning.config(), args.observe(&node_name));
    let source = match args.manifests {
        Some(dir) => Source::Manifests(dir),
        None => Source::Kube(args.kubeconfig),
    };
    info!(version = env!("CARGO_PKG_VERSION"), node = node_name, ?source, "starting");
    // First, so that it is known to be there, and not to be ready.
    let observation = observe::start(observed)?;
    takeover::warn_if_beside();
    let mut datapath = Datapath::open(&options).context("opening the data path")?;
    // Before there are threads that are not limited, and before anything is read from outside.
    warn_of(options.privileges.limit(Duty::Serve));
    // One thread: the source hands its changes to the loop without waking another, and there is one heap to
    // keep small. The loop holds it for the few hundred microseconds that a change takes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the agent's runtime")?;
    let counters = Arc::new(Counters::default());
    runtime.spawn(tell_refusals());
    let work = run::run(&mut datapath, source, &node_name, config, args.uplinks, counters, observation);
    let ended = runtime.block_on(work);
    // A file or a name that is still being read, from a server that does not answer, is not waited for.
    runtime.shutdown_background();
    ended
}

/// Says which system calls are refused, each once.
async fn tell_refusals() {
    let told = async {
        let mut refusals = on_refusal()?;
        loop {
            let number = refusals.next().await?;
            warn!(
                number,
                "a system call was refused that the agent was not expected to make (`ausyscall NUMBER` names it): please \
                 report it; --privileges keep lets it through"
            );
        }
    };
    let Err(error): std::io::Result<std::convert::Infallible> = told.await;
    warn!("system calls that are refused will not be told: {error}");
}

impl Args {
    fn observe(&self, node_name: &str) -> observe::Options {
        let api_server = match self.manifests {
            Some(_) => None,
            None => Some(observe::ApiServer { kubeconfig: self.kubeconfig.clone() }),
        };
        observe::Options {
            node_name: node_name.to_owned(),
            api_server,
            healthz: self.health.healthz(),
            bind_hard_fail: self.health.bind_hard_fail(),
            sync_period: self.health.sync_period(),
            privileges: self.privileges.privileges(),
        }
    }

    fn datapath(&self) -> datapath::Options {
        let default = Capacities::default();
        let capacities = Capacities {
            frontends: self.max_frontends.unwrap_or(default.frontends),
            slots: self.max_slots.unwrap_or(default.slots),
            backends4: self.max_backends.unwrap_or(default.backends4),
            backends6: self.max_backends.unwrap_or(default.backends6),
            services: self.max_services.unwrap_or(default.services),
            source_ranges: self.max_source_ranges.unwrap_or(default.source_ranges),
            flows: self.max_flows.unwrap_or(default.flows),
            new_flows: self.max_new_flows.unwrap_or(default.new_flows),
            ..default
        };
        datapath::Options {
            bpffs: self.bpffs.clone(),
            cgroup: self.cgroup.clone(),
            capacities,
            count_connections: self.count_connections,
            links: LinkOptions { tc: self.tc, xdp: self.xdp, workload: self.workload_links },
            source_ports: self.source_ports,
            lifetimes: self.lifetimes.lifetimes(),
            privileges: self.privileges.privileges(),
            cluster_cidr: self.cluster_cidr.cluster_cidr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::{
        datapath::Lifetimes,
        privileges::{Privileges, Unexpected},
    };

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Command::try_parse_from([&["run"], flags].concat()).map(|command| command.args)
    }

    #[test]
    fn flags_are_as_documented() {
        let args =
            parse(&["--kubeconfig", "k", "--hostname-override", "n1", "--log-format", "json"]).unwrap();
        assert_eq!(args.node_name.as_deref(), Some("n1"));
        assert_eq!(args.log_format, logging::Format::Json);
        assert_eq!(args.log_level, logging::Level::Info);
        assert_eq!(args.bpffs, PathBuf::from("/sys/fs/bpf/ferroute"));
        assert!(parse(&["--kubeconfig", "k", "--manifests", "m"]).is_err(), "one source");
        let options = parse(&["--max-backends", "7", "--cgroup", "/c"]).unwrap().datapath();
        assert_eq!((options.capacities.backends4, options.capacities.backends6), (7, 7));
        assert_eq!(options.capacities.slots, Capacities::default().slots);
        assert_eq!(options.cgroup, Some(PathBuf::from("/c")));
        assert!(!options.count_connections, "off unless asked for");
        assert!(parse(&["--count-connections"]).unwrap().datapath().count_connections);
        assert_eq!(options.links, LinkOptions::default(), "nothing is attached to a driver unless asked for");
        let args =
            parse(&["--uplinks", "eth0,ens*", "--tc", "clsact", "--source-ports", "2000-9999"]).unwrap();
        assert!(args.uplinks.names("ens5"));
        assert_eq!(args.datapath().links.tc, TcMode::Clsact);
        assert_eq!(args.datapath().source_ports, Some(SourcePorts { first: 2000, last: 9999 }));
        let options = parse(&["--max-source-ranges", "9"]).unwrap().datapath();
        assert_eq!(options.capacities, Capacities { source_ranges: 9, ..Capacities::default() });
        assert!(parse(&["--max-slots", "0"]).is_err(), "no map of nothing");
        assert!(parse(&["--log-level", "loud"]).is_err());
        let options = parse(&["--max-flows", "1000", "--conntrack-udp-timeout", "90s"]).unwrap().datapath();
        assert_eq!((options.capacities.flows, options.capacities.new_flows), (1000, 32_768));
        let lifetimes = Lifetimes { udp: Duration::from_secs(90), ..Lifetimes::default() };
        assert_eq!(options.lifetimes, lifetimes, "those that were not asked for are as documented");
        assert_eq!(options.privileges, Privileges::Drop(Unexpected::Refuse), "unless asked to keep them");
        assert_eq!(parse(&["--privileges", "keep"]).unwrap().datapath().privileges, Privileges::Keep);
        assert!(parse(&["--max-flows", "100000000"]).is_err(), "more than the kernel can");
        assert!(parse(&["--conntrack-tcp-timeout-established", "1"]).is_err(), "without a unit");
        let options = parse(&["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"]).unwrap().datapath();
        assert_eq!(options.cluster_cidr, "10.244.0.0/16,fd00:10:244::/48".parse().unwrap());
        let error = parse(&["--cluster-cidr", "10.0.0.0/8,10.1.0.0/16"]).unwrap_err().to_string();
        assert!(error.contains("two networks of one family"), "{error}");
    }
}
