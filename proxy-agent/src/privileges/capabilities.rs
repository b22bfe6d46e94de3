use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

use super::{Duty, Error};

/// What steady state needs:
///
/// - `BPF`, `PERFMON`: maps and programs. Replaced programs of links that come later have been loaded at the start, but
///   the kernel asks again whenever a map is written by a program's descriptor.
/// - `NET_ADMIN`: attaching to links and cgroups, and queueing disciplines.
/// - `NET_BIND_SERVICE`: a health check node port may be any port of the range that the cluster was given.
const SERVE: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// `SYS_ADMIN` to enter a network namespace, `SYS_PTRACE` to find it by a process of another user.
const ENTER_NAMESPACES: CapabilitySet =
    SERVE.union(CapabilitySet::SYS_ADMIN).union(CapabilitySet::SYS_PTRACE);

/// The next agent has threads of both kinds, mounts a bpffs where there is none yet (`SYS_ADMIN`), lifts its limit of
/// locked memory and sets its score for the out-of-memory killer (`SYS_RESOURCE`), and limits itself (`SETPCAP`).
const RESTART: CapabilitySet =
    ENTER_NAMESPACES.union(CapabilitySet::SYS_RESOURCE).union(CapabilitySet::SETPCAP);

/// What a thread with this work keeps, if it has it.
pub(super) fn kept(duty: Duty) -> CapabilitySet {
    match duty {
        Duty::Serve => SERVE,
        Duty::EnterNamespaces => ENTER_NAMESPACES,
        Duty::Restart => RESTART,
    }
}

/// Limits all capability sets of the calling thread.
pub(super) fn limit(duty: Duty) -> Result<(), Error> {
    let failed = |what| move |error: Errno| Error::Kernel { what, source: error.into() };
    let has = capabilities(None).map_err(failed("capabilities, which have to be read first"))?;
    let keep = has.permitted & kept(duty);
    // A container that was given a few capabilities has a bounding set as small as that, and may not change it.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        limit_bounding_set(keep).map_err(failed("capabilities of the bounding set"))?;
    }
    clear_ambient_capability_set().map_err(failed("ambient capabilities"))?;
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("capabilities"))
}

fn limit_bounding_set(keep: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
