//! The eBPF programs: loading them against pinned maps, and putting those of the socket path behind pinned
//! links.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, programs::Program};

use super::{
    Capacities, Error,
    attach::LinkProgram,
    cgroup::Cgroup,
    cluster_cidr::ClusterCidr,
    features::{self, Feature},
    hooks::{Hook, LinkHook},
    object,
    pins::{Layout, Pins},
    source_ports::SourcePorts,
    sys,
};

/// What the verifier made of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name.
    pub program: &'static str,
    /// Instructions that the verifier walked through; `None` before kernel 5.16.
    pub verified_instructions: Option<u32>,
    /// Size in bytes of the program as the kernel holds it, before its translation to machine code.
    pub translated_bytes: Option<u32>,
}

/// What the programs are told when they are loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Count the open sockets of each backend.
    pub(crate) count_connections: bool,
    /// Ports for packets that are sent in a client's place.
    pub(crate) source_ports: SourcePorts,
    /// Where the cluster's pods are.
    pub(crate) cluster_cidr: ClusterCidr,
}

/// Loaded programs that are not attached yet.
pub(crate) struct Programs {
    ebpf: Ebpf,
    /// Those of the socket path.
    hooks: Vec<Hook>,
    stats: Vec<ProgramStats>,
}

impl Programs {
    /// Loads all programs whose hook the kernel has; creates and pins the maps that are not pinned yet.
    pub(crate) fn load(
        object: &[u8],
        layout: &Layout,
        capacities: &Capacities,
        settings: Settings,
    ) -> Result<Self, Error> {
        let Settings { count_connections, source_ports, cluster_cidr } = settings;
        let has_set_retval = u32::from(has(features::SET_RETVAL));
        let counts = u32::from(count_connections && Hook::SockRelease.is_there());
        let has_coarse_clock = u32::from(has(features::COARSE_CLOCK));
        let (first_port, ports) = (u32::from(source_ports.first), source_ports.count());
        let (cluster4, cluster6) = (cluster_cidr.words4(), cluster_cidr.words6());
        let (host, rewritten) = (host_namespace(), rewritten());
        has(features::BARRIER);
        let mut loader = EbpfLoader::new();
        // The programs read no kernel structures: parsing the kernel's types would be 30 ms for nothing.
        loader
            .btf(None)
            .override_global("HAS_SET_RETVAL", &has_set_retval, true)
            .override_global("COUNT_CONNECTIONS", &counts, true)
            .override_global("HAS_COARSE_CLOCK", &has_coarse_clock, true)
            .override_global("SOURCE_PORT_FIRST", &first_port, true)
            .override_global("SOURCE_PORT_COUNT", &ports, true)
            .override_global("HOST_NETNS", &host, true)
            .override_global("CLUSTER_CIDR4", &cluster4[..], true)
            .override_global("CLUSTER_CIDR6", &cluster6[..], true)
            .override_global("REWRITTEN", &rewritten, true);
        for map in layout.maps() {
            loader.map_pin_path(map, layout.path(map));
            if let Some(capacity) = object::capacity(map, capacities) {
                loader.map_max_entries(map, capacity);
            }
        }
        let mut ebpf = loader.load(object)?;
        let (mut hooks, mut stats) = (Vec::new(), Vec::new());
        for hook in Hook::ALL {
            if hook == Hook::SockRelease && !count_connections {
                continue;
            }
            if !hook.is_there()
                && let Some(cost) = hook.cost()
            {
                tracing::warn!(hook = hook.name(), since = hook.since(), cost, "the kernel lacks a hook");
                continue;
            }
            stats.push(load_one(&mut ebpf, hook.name())?);
            hooks.push(hook);
        }
        for hook in LinkHook::ALL {
            match load_one(&mut ebpf, hook.name()) {
                Ok(loaded) => stats.push(loaded),
                Err(error) if hook == LinkHook::UplinkXdp => {
                    tracing::warn!(%error, "the kernel takes no XDP program: packets are served after the driver");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { ebpf, hooks, stats })
    }

    /// What the verifier made of each program.
    pub(crate) fn stats(&self) -> &[ProgramStats] {
        &self.stats
    }

    /// The programs of the packet path.
    pub(crate) fn of_links(&self) -> Result<BTreeMap<LinkHook, LinkProgram>, Error> {
        let mut programs = BTreeMap::new();
        for hook in LinkHook::ALL {
            let Some(loaded) = self.ebpf.program(hook.name()) else { continue };
            // One that the kernel has not taken.
            let Ok(program) = loaded.fd() else { continue };
            let failed = |source| Error::Program { program: hook.name(), source };
            let program = program.as_fd().try_clone_to_owned().map_err(|error| failed(error.into()))?;
            programs.insert(hook, LinkProgram { program, id: loaded.info().map_err(failed)?.id() });
        }
        Ok(programs)
    }

    /// Puts every program of the socket path behind the pinned link of its hook, or attaches it and pins the
    /// link. Links of hooks that have no program (any more) are removed.
    pub(crate) fn attach(&self, pins: &Pins, cgroup: &Cgroup) -> Result<(), Error> {
        for hook in &self.hooks {
            let program = self.ebpf.program(hook.name()).and_then(|program| program.fd().ok());
            let Some(program) = program else { continue };
            attach_one(*hook, program.as_fd(), &pins.link(hook.name()), cgroup).map_err(|source| {
                let hint = match source.raw_os_error() {
                    Some(libc::EPERM) => {
                        "needs root or CAP_NET_ADMIN, and no program above it that forbids others"
                    }
                    Some(libc::E2BIG) => "64 programs are attached there already",
                    _ => "is it a cgroup v2 directory, and the kernel 5.10 or newer?",
                };
                Error::Attach { hook: hook.name(), cgroup: cgroup.path.clone(), hint, source }
            })?;
        }
        for name in pins.links()? {
            if LinkHook::of_pin(&name).is_none() && self.hooks.iter().all(|hook| hook.name() != name) {
                let pin = pins.link(&name);
                fs::remove_file(&pin).map_err(Error::path("removing", &pin))?;
                tracing::info!(hook = name, "detached a program that is not in use any more");
            }
        }
        Ok(())
    }
}

/// Tries a feature, and says so when the kernel lacks it.
fn has(feature: Feature) -> bool {
    let there = feature.is_there();
    if !there {
        let Feature { name, since, cost, .. } = feature;
        tracing::warn!(feature = name, since, cost, "the kernel lacks a feature");
    }
    there
}

/// A mark for rewritten packets: nine bits that are not all zero, above the seven that others use.
fn rewritten() -> u32 {
    (1 + sys::random_u32() % 511) << 7
}

/// What the kernel calls the node's network namespace by, the agent's own; 0 when it does not tell.
fn host_namespace() -> u64 {
    sys::network_namespace_cookie().unwrap_or_else(|error| {
        tracing::warn!(
            %error,
            since = "5.14",
            "the kernel does not tell network namespaces apart: node ports are not served on loopback addresses"
        );
        0
    })
}

fn load_one(ebpf: &mut Ebpf, name: &'static str) -> Result<ProgramStats, Error> {
    let missing = || Error::Object(format!("it has no program {name} of the right type"));
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    let failed = |source| Error::Program { program: name, source };
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => return Err(missing()),
    }
    .map_err(failed)?;
    let info = program.info().map_err(failed)?;
    let stats = ProgramStats {
        program: name,
        verified_instructions: info.verified_instruction_count(),
        translated_bytes: info.size_translated(),
    };
    tracing::debug!(
        program = name,
        verified_instructions = stats.verified_instructions,
        translated_bytes = stats.translated_bytes,
        "loaded"
    );
    Ok(stats)
}

fn attach_one(hook: Hook, program: BorrowedFd<'_>, pin: &Path, cgroup: &Cgroup) -> io::Result<()> {
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    let link = match sys::open_pin(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return sys::pin(sys::link_create(program, &cgroup.directory, hook.attach_type())?, pin);
        }
        Err(error) => return Err(error),
    };
    // The kernel would put any program of the type behind any link: see that it is this hook's.
    let fits = sys::link_shape(&link).is_ok_and(|shape| {
        (shape.link_type, shape.cgroup()) == (BPF_LINK_TYPE_CGROUP, (cgroup.id, hook.attach_type()))
    });
    if fits {
        return sys::link_update(link, program);
    }
    // Both are attached for a moment; the second finds nothing left to translate.
    let new = pin.with_file_name(format!("{}-new", hook.name()));
    let _leftover = fs::remove_file(&new);
    sys::pin(sys::link_create(program, &cgroup.directory, hook.attach_type())?, &new)?;
    fs::rename(&new, pin)?;
    tracing::info!(hook = hook.name(), cgroup = %cgroup.path.display(), "moved to another cgroup");
    Ok(())
}
