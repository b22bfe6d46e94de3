//! Maps, programs and their attachment: the only module that touches the kernel.
//!
//! [`Datapath::open`] loads the programs against pinned maps, [`Datapath::reconcile`] brings the maps to
//! the first complete state and attaches the programs, [`Datapath::apply`] follows single changes. What is
//! pinned goes on without the agent; [`cleanup()`] ends it, [`inspect()`] looks at it.
#![deny(unsafe_code)]

mod alloc;
mod attach;
mod cgroup;
mod cluster_cidr;
mod error;
mod features;
mod flows;
mod hooks;
mod inspect;
mod kernel_types;
mod mapped;
mod maps;
mod memory;
mod mounts;
mod object;
mod pins;
mod probe;
mod programmer;
mod programs;
mod report;
mod sockets;
mod source_ports;
mod sys;
mod tables;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    attach::{Attachments, LinkTable},
    cgroup::Cgroup,
    flows::Collector,
    maps::Maps,
    pins::{Layout, Pins},
    programmer::Programmer,
    programs::{Programs, Settings},
    sockets::Sockets,
};
use crate::{
    links::Topology,
    plan::{PlanChange, ServicePortId, ServicePortPlan},
    privileges::Privileges,
};

pub use attach::{AttachedView, LinkOptions, LinkView, TcMode, WorkloadLinks, XdpMode, inspect_links};
pub use cgroup::{Because, of_node};
pub use cluster_cidr::ClusterCidr;
pub use error::Error;
pub use flows::{Carried, Fill, FlowView, Flows, Lifetimes, Pass, monotonic_now};
pub use hooks::{Hook, LinkHook};
pub use inspect::{
    BackendView, EndpointView, FrontendView, Snapshot, WhenEmptyView, busy_backends, inspect, service_names,
};
pub use memory::return_large_buffers;
pub use pins::cleanup;
pub use probe::{AttachedProgram, Collected, MapUsage, Probe};
pub use programs::ProgramStats;
pub use report::{Refused, RefusedReason, Report};
pub use sockets::SocketTotals;
pub use source_ports::SourcePorts;
pub use tables::Capacities;

/// Where maps and links are pinned unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/ferroute";

/// How to set up the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory for the pins; a bpffs is mounted there when it is not on one.
    pub bpffs: PathBuf,
    /// The cgroup whose processes are served; `None` is that of the whole node.
    pub cgroup: Option<PathBuf>,
    /// Where the cgroup of the node cannot be found, that of the agent's own container does: pods are then served on
    /// their links.
    pub or_own_cgroup: bool,
    /// How much the maps hold.
    pub capacities: Capacities,
    /// Count open connections per backend; each socket's close then costs a little more.
    pub count_connections: bool,
    /// How the programs get the packets of the node's links.
    pub links: LinkOptions,
    /// Ports for packets that are sent in a client's place; `None` is the most that are free.
    pub source_ports: Option<SourcePorts>,
    /// For how long flows of the packet path are kept without a packet.
    pub lifetimes: Lifetimes,
    /// What threads of the data path keep for their work.
    pub privileges: Privileges,
    /// Where the cluster's pods are: those of other nodes are no clients outside.
    pub cluster_cidr: ClusterCidr,
    /// Close the TCP connections of endpoints that are gone, and not only UDP sockets.
    pub close_connections: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bpffs: DEFAULT_BPFFS.into(),
            cgroup: None,
            or_own_cgroup: false,
            capacities: Capacities::default(),
            count_connections: false,
            links: LinkOptions::default(),
            source_ports: None,
            lifetimes: Lifetimes::default(),
            privileges: Privileges::Keep,
            cluster_cidr: ClusterCidr::default(),
            close_connections: false,
        }
    }
}

/// The kernel's side of the agent. Dropping it leaves everything in place.
pub struct Datapath {
    /// Shared with the thread that looks at sockets, which asks it for a moment what is served.
    programmer: Arc<Mutex<Programmer<Maps>>>,
    stats: Vec<ProgramStats>,
    /// Until they are attached.
    programs: Option<Programs>,
    pins: Pins,
    layout: Layout,
    cgroup: Cgroup,
    attachments: Attachments,
    /// The links as they were said to be last.
    topology: Topology,
    /// Whether they have programs where pods are behind them.
    on_workload_links: bool,
    workload_links: WorkloadLinks,
    lifetimes: Lifetimes,
    close_connections: bool,
    probe: Probe,
    /// These work for as long as this lives.
    sockets: Sockets,
    _collector: Collector,
}

impl Datapath {
    /// Loads the programs against the pinned maps, which are made if need be and otherwise read back.
    /// Whatever is attached stays as it is until [`Self::reconcile`].
    ///
    /// # Errors
    /// Anything that keeps the data path from working; the message says what to do.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let object = object::embedded()?;
        sys::lift_memlock_limit();
        let cgroup = Cgroup::open(options.cgroup.as_deref(), options.or_own_cgroup)?;
        let pins = Pins::prepare(&options.bpffs)?;
        let capacities = options.capacities;
        let layout = pins.layout(object::map_shapes(object, &capacities)?)?;
        let settings = Settings {
            count_connections: options.count_connections,
            source_ports: SourcePorts::choose(options.source_ports)?,
            cluster_cidr: options.cluster_cidr,
        };
        let programs = Programs::load(object, &layout, &capacities, settings)?;
        let table = LinkTable::open(&layout.directory())?;
        let attachments = Attachments::new(programs.of_links()?, options.links, table);
        let maps = Maps::open(&layout.directory(), false)?;
        let contents = maps.contents()?;
        let capacities = maps.capacities(capacities);
        let counters = layout.path("COUNTERS");
        let counters = sys::open_pin(&counters).map_err(Error::path("opening", counters))?;
        let flows = Flows::open_pins(|map| layout.path(map))?;
        let probe = Probe::new(counters);
        let collector = Collector::start(flows, probe.clone(), options.lifetimes, options.privileges)?;
        let mut programmer = Programmer::new(maps, capacities, contents, sys::random_u32());
        programmer.tables.trim();
        tracing::info!(
            service_ports = programmer.len(),
            maps = %layout.directory().display(),
            cgroup = %cgroup.path.display(),
            because = %cgroup.because,
            "data path opened"
        );
        let stats = programs.stats().to_vec();
        let cgroup_is_containers = cgroup.because == Because::Container;
        let programmer = Arc::new(Mutex::new(programmer));
        let close_connections = options.close_connections;
        let shared = Arc::clone(&programmer);
        let sockets =
            Sockets::start(object, &layout, &cgroup.path, shared, close_connections, options.privileges)?;
        Ok(Self {
            programmer,
            stats,
            programs: Some(programs),
            pins,
            layout,
            cgroup,
            attachments,
            topology: Topology::default(),
            on_workload_links: false,
            workload_links: options.links.workload.without_sockets_of_pods(cgroup_is_containers),
            lifetimes: options.lifetimes,
            close_connections,
            sockets,
            probe,
            _collector: collector,
        })
    }

    /// Makes the maps hold exactly `complete`, writing only what differs. The first call then attaches the
    /// programs, or replaces those of an earlier agent without a gap.
    ///
    /// # Errors
    /// Attaching failed. What goes wrong with single Services is in the report.
    pub fn reconcile(&mut self, complete: &[(ServicePortId, Arc<ServicePortPlan>)]) -> Result<Report, Error> {
        let report = self.programmer().reconcile(complete);
        self.probe.set_programmed(self.programmer().usage());
        if let Some(programs) = &self.programs {
            self.carry_flows_over();
            programs.attach(&self.pins, &self.cgroup)?;
            // What was opened since.
            self.carry_flows_over();
            self.pins.switch_to(&self.layout)?;
            // The links hold them now.
            self.programs = None;
            self.tell_of_attached();
        }
        // Endpoints may have gone while no agent was there to see it.
        self.sockets.look();
        Ok(report)
    }

    /// Brings the programs of the packet path to the node's links, and tells them what each leads to. Called
    /// again when links have changed, and after [`Self::reconcile`]: before it nothing is attached.
    ///
    /// False when something is to be tried again; it has been logged.
    pub fn set_links(&mut self, topology: &Topology) -> bool {
        self.topology.clone_from(topology);
        self.programs.is_none() && self.attach_to_links()
    }

    /// Copies the flows of the maps that are in use into those of this layout, if they are others.
    fn carry_flows_over(&self) {
        let Some(old) = self.pins.replaced_flows(&self.layout) else { return };
        // Maps of another layout version cannot be read: their connections begin anew.
        let Ok(old) = Flows::open_pins(|map| old.join(map)) else { return };
        let carried = Flows::open_pins(|map| self.layout.path(map))
            .and_then(|new| old.carry_over(&new, &self.lifetimes, monotonic_now()));
        match carried {
            Ok(Carried { copied, refused }) => {
                if copied > 0 {
                    tracing::info!(flows = copied, "copied flows into maps of another capacity");
                }
                if refused > 0 {
                    tracing::warn!(flows = refused, "not all flows fit into the new maps: raise --max-flows");
                }
            }
            // Services have to be served all the same.
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!("copying flows into maps of another capacity: {error:#}; they are cut off");
            }
        }
    }

    /// Applies single changes; only the service ports in them are touched, and those that wait for room when
    /// some came free. An empty slice tries again what the kernel refused ([`Report::waiting`]).
    pub fn apply(&mut self, changes: &[PlanChange]) -> Report {
        let report = self.programmer().apply(changes);
        self.probe.set_programmed(self.programmer().usage());
        if report.udp_backends_removed > 0 || self.close_connections && report.tcp_backends_removed > 0 {
            self.sockets.look();
        }
        if self.needs_workload_links() != self.on_workload_links {
            self.attach_to_links();
        }
        report
    }

    fn attach_to_links(&mut self) -> bool {
        let needed = self.needs_workload_links();
        let complete = self.attachments.set(&self.pins, &self.topology, needed);
        self.tell_of_attached();
        // Else the next change tries again.
        if complete {
            self.on_workload_links = needed;
        }
        complete
    }

    fn tell_of_attached(&self) {
        let is_on_cgroup = |program| Hook::ALL.iter().any(|hook| hook.name() == program);
        let on_cgroup = self.stats.iter().filter(|stats| is_on_cgroup(stats.program));
        let on_cgroup = on_cgroup.map(|stats| AttachedProgram { program: stats.program, places: 1 });
        let on_links = self.attachments.attached();
        let on_links = on_links.map(|(hook, places)| AttachedProgram { program: hook.name(), places });
        self.probe.set_attached(on_cgroup.chain(on_links).collect());
    }

    fn needs_workload_links(&self) -> bool {
        match self.workload_links {
            WorkloadLinks::Auto => self.programmer().needs_workload_links(),
            WorkloadLinks::Always => true,
            WorkloadLinks::Never => false,
        }
    }

    /// Number of service ports that the maps hold.
    #[must_use]
    pub fn service_ports(&self) -> usize {
        self.programmer().len()
    }

    /// What has happened to sockets whose endpoint is gone.
    #[must_use]
    pub fn socket_totals(&self) -> &Arc<SocketTotals> {
        self.sockets.totals()
    }

    fn programmer(&self) -> MutexGuard<'_, Programmer<Maps>> {
        self.programmer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted, and how full the maps are.
    #[must_use]
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    /// What the verifier made of each program.
    #[must_use]
    pub fn program_stats(&self) -> &[ProgramStats] {
        &self.stats
    }

    /// The cgroup whose processes are served.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup.path
    }
}

/// The agent moves the data path to a thread of its own.
const _: () = {
    const fn can_move<T: Send>() {}
    can_move::<Datapath>();
};
