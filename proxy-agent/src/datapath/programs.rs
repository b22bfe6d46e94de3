//! The eBPF programs: loading them against pinned maps, and putting them behind pinned links.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, programs::Program};

use super::{
    Capacities, Error,
    cgroup::Cgroup,
    features::{self, Feature},
    hooks::Hook,
    object,
    pins::{Layout, Pins},
    sys,
};

/// What the verifier made of one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Where it is attached.
    pub hook: Hook,
    /// Instructions that the verifier walked through; `None` before kernel 5.16.
    pub verified_instructions: Option<u32>,
    /// Size in bytes of the program as the kernel holds it, before its translation to machine code.
    pub translated_bytes: Option<u32>,
}

/// Loaded programs that are not attached yet.
pub(crate) struct Programs {
    ebpf: Ebpf,
    stats: Vec<ProgramStats>,
}

impl Programs {
    /// Loads all programs whose hook the kernel has; creates and pins the maps that are not pinned yet.
    pub(crate) fn load(
        object: &[u8],
        layout: &Layout,
        capacities: &Capacities,
        count_connections: bool,
    ) -> Result<Self, Error> {
        let has_set_retval = u32::from(has(features::SET_RETVAL));
        let counts = u32::from(count_connections && Hook::SockRelease.is_there());
        has(features::BARRIER);
        let mut loader = EbpfLoader::new();
        // The programs read no kernel structures: parsing the kernel's types would be 30 ms for nothing.
        loader.btf(None).override_global("HAS_SET_RETVAL", &has_set_retval, true).override_global(
            "COUNT_CONNECTIONS",
            &counts,
            true,
        );
        for map in layout.maps() {
            loader.map_pin_path(map, layout.path(map));
            if let Some(capacity) = object::capacity(map, capacities) {
                loader.map_max_entries(map, capacity);
            }
        }
        let mut ebpf = loader.load(object)?;
        let mut stats = Vec::new();
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
            stats.push(load_one(&mut ebpf, hook)?);
        }
        Ok(Self { ebpf, stats })
    }

    /// What the verifier made of each program.
    pub(crate) fn stats(&self) -> &[ProgramStats] {
        &self.stats
    }

    /// Puts every program behind the pinned link of its hook, or attaches it and pins the link. Links of
    /// hooks that have no program (any more) are removed.
    pub(crate) fn attach(&self, pins: &Pins, cgroup: &Cgroup) -> Result<(), Error> {
        for ProgramStats { hook, .. } in &self.stats {
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
            if self.stats.iter().all(|stats| stats.hook.name() != name) {
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

fn load_one(ebpf: &mut Ebpf, hook: Hook) -> Result<ProgramStats, Error> {
    let missing = || Error::Object(format!("it has no program {} of the right type", hook.name()));
    let program = ebpf.program_mut(hook.name()).ok_or_else(missing)?;
    let failed = |source| Error::Program { program: hook.name(), source };
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => return Err(missing()),
    }
    .map_err(failed)?;
    let info = program.info().map_err(failed)?;
    let stats = ProgramStats {
        hook,
        verified_instructions: info.verified_instruction_count(),
        translated_bytes: info.size_translated(),
    };
    tracing::debug!(
        program = hook.name(),
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
        (shape.link_type, shape.attach_type, shape.cgroup)
            == (BPF_LINK_TYPE_CGROUP, hook.attach_type(), cgroup.id)
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
