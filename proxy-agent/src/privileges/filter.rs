use std::{collections::BTreeMap, env};

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::{Duty, Error, restart, syscalls};

/// What kinds of sockets are made.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// What a file is asked by `ioctl`: whether it is a terminal, and to not block; and a socket, what a network card does by itself.
const REQUESTS: [libc::Ioctl; 5] =
    [libc::FIONBIO, libc::FIOCLEX, libc::TCGETS, libc::TIOCGWINSZ, libc::SIOCETHTOOL];

/// Filters the system calls of the calling thread.
pub(super) fn install(duty: Duty) -> Result<(), Error> {
    // A program that was executed has its filter already, and each is one more to go through at every call.
    if duty == Duty::Restart && env::var_os(restart::RESTARTED).is_some() {
        return Ok(());
    }
    let failed = |error: seccompiler::Error| Error::Filter(error.to_string());
    for program in programs(duty).map_err(|error| Error::Filter(error.to_string()))? {
        apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

/// Three, of which the kernel takes the strictest answer: a filter has one answer for all that it does not let through.
fn programs(duty: Duty) -> Result<[BpfProgram; 3], seccompiler::BackendError> {
    let architecture: TargetArch = env::consts::ARCH.try_into()?;
    let compile = |rules: Rules, otherwise, matched| {
        SeccompFilter::new(rules, otherwise, matched, architecture).and_then(BpfProgram::try_from)
    };
    let refuse = |rules: Rules, errno: i32| {
        compile(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()))
    };
    // The flags of clone3() are behind a pointer, where no filter sees them. A C library that hears that the kernel has
    // no such call goes on with clone().
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    // Threads, but no processes. Not by a signal: the C library blocks all of them meanwhile, and one that is blocked
    // would end the process.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    let process = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(thread), 0)?;
    let clone = Rules::from([(libc::SYS_clone, vec![SeccompRule::new(vec![process])?])]);
    Ok([
        refuse(clone3, libc::ENOSYS)?,
        refuse(clone, libc::EPERM)?,
        compile(rules(duty)?, SeccompAction::Trap, SeccompAction::Allow)?,
    ])
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn rules(duty: Duty) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = all(duty).map(|call| (call, Vec::new())).collect();
    // The other filters answer these.
    rules.insert(libc::SYS_clone, Vec::new());
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_socket, one_of(0, FAMILIES.map(|family| u64::from(family.cast_unsigned())))?);
    // The kernel looks at 32 bits of a request.
    let mut requests = one_of(1, REQUESTS.map(|request| request & u64::from(u32::MAX)))?;
    if duty == Duty::Restart {
        // A start looks for the link of IPVS.
        requests.extend(one_of(1, [libc::SIOCGIFINDEX & u64::from(u32::MAX)])?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    Ok(rules)
}

/// Lets through what has one of these values in an argument of 32 bits.
fn one_of<const N: usize>(
    argument: u8,
    values: [u64; N],
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |value| {
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![is])
    };
    values.into_iter().map(rule).collect()
}

/// The system calls that are let through with any arguments.
fn all(duty: Duty) -> impl Iterator<Item = c_long> {
    let more: [&[c_long]; 2] = match duty {
        Duty::Serve => [&[], &[]],
        Duty::EnterNamespaces => [syscalls::ENTER_NAMESPACES, &[]],
        Duty::Restart => [syscalls::ENTER_NAMESPACES, syscalls::RESTART],
    };
    [syscalls::SERVE, syscalls::SERVE_OLD].into_iter().chain(more).flatten().copied()
}
