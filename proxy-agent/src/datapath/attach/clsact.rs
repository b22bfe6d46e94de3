//! The packet programs as filters of a `clsact` queueing discipline, for kernels without tcx (before 6.6).
//!
//! Filters have no pins: they stay until they are removed, and are found again by their priority, handle and
//! name. Of aya's functions for the same none finds a filter by these, and its links detach when dropped.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{
            TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption,
        },
    },
};

use super::netlink::{Answer, Netlink};
use crate::datapath::hooks::LinkHook;

const CLSACT: &str = "clsact";
/// First on the way in and last on the way out, as with tcx: below what people write by hand but for 1, and
/// above 49152, where the kernel begins to count down for those who name none.
const INGRESS_PRIORITY: u16 = 23;
const EGRESS_PRIORITY: u16 = 0xc0f7;
/// Told from others' in the same priority by this.
const HANDLE: TcHandle = TcHandle { major: 0xfe77, minor: 1 };
/// What stands before the name of the program.
const NAME: &str = "ferroute_";
/// Every protocol, in network order.
const ETH_P_ALL: u16 = 3_u16.to_be();

/// A filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) hook: LinkHook,
    /// Number of the program.
    pub(crate) program: u32,
}

/// What is on one side of a link.
#[derive(Debug, Default)]
struct Side {
    ours: Option<Filter>,
    /// Filters of others.
    others: usize,
}

/// Our filters on a link.
pub(super) fn filters(netlink: &Netlink, interface: u32) -> io::Result<Vec<Filter>> {
    let [ingress, egress] = sides(netlink, interface)?;
    Ok(ingress.ours.into_iter().chain(egress.ours).collect())
}

/// The links that have a clsact queueing discipline, ours or another's.
pub(super) fn interfaces(netlink: &Netlink) -> io::Result<BTreeSet<u32>> {
    let answers = netlink.dump(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
    let with_clsact = answers.into_iter().filter_map(|answer| match answer {
        Ok(RouteNetlinkMessage::NewQueueDiscipline(message)) => {
            let is_clsact = message.attributes.contains(&TcAttribute::Kind(CLSACT.to_owned()));
            is_clsact.then_some(message.header.index.cast_unsigned())
        }
        _ => None,
    });
    Ok(with_clsact.collect())
}

/// Puts a program into the filter of its side, which is made if need be and otherwise changed in one step.
pub(super) fn attach(
    netlink: &Netlink,
    hook: LinkHook,
    interface: u32,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let qdisc = clsact(interface);
    match netlink.execute(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let mut filter = filter(interface, hook.is_egress());
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd().cast_unsigned())),
        TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{NAME}{}", hook.name()))),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    netlink.execute(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)
}

/// Takes our filter off one side of a link.
pub(super) fn detach(netlink: &Netlink, hook: LinkHook, interface: u32) -> io::Result<()> {
    netlink.execute(RouteNetlinkMessage::DelTrafficFilter(filter(interface, hook.is_egress())), 0)
}

/// Removes the queueing discipline if no filter is left in it.
pub(super) fn remove_empty(netlink: &Netlink, interface: u32) -> io::Result<()> {
    let empty = sides(netlink, interface)?.iter().all(|side| side.ours.is_none() && side.others == 0);
    if !empty {
        return Ok(());
    }
    netlink.execute(RouteNetlinkMessage::DelQueueDiscipline(clsact(interface)), 0)
}

/// Ingress and egress.
fn sides(netlink: &Netlink, interface: u32) -> io::Result<[Side; 2]> {
    let read = |egress: bool| {
        let mut get = filter(interface, egress);
        // All there are, not only ours.
        get.header.handle = TcHandle::UNSPEC;
        get.header.info = 0;
        get.attributes.clear();
        let answers = netlink.dump(RouteNetlinkMessage::GetTrafficFilter(get))?;
        Ok::<_, io::Error>(side(&answers, egress))
    };
    Ok([read(false)?, read(true)?])
}

fn side(answers: &[Answer], egress: bool) -> Side {
    let mut side = Side::default();
    for answer in answers {
        let message = match answer {
            Ok(RouteNetlinkMessage::NewTrafficFilter(message)) => message,
            // A filter that says more than is known here is nobody's but another's.
            Err(_) => {
                side.others += 1;
                continue;
            }
            _ => continue,
        };
        // Without a handle: not a filter, but that there are some of this kind and priority.
        if message.header.handle == TcHandle::UNSPEC {
            continue;
        }
        match ours(message, egress) {
            Some(filter) => side.ours = Some(filter),
            None => side.others += 1,
        }
    }
    side
}

fn ours(message: &TcMessage, egress: bool) -> Option<Filter> {
    let place = filter(message.header.index.cast_unsigned(), egress).header;
    if (message.header.handle, message.header.info) != (place.handle, place.info) {
        return None;
    }
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut hook, mut program) = (None, 0);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                let name = name.strip_prefix(NAME)?;
                hook = LinkHook::ALL.into_iter().find(|hook| hook.name() == name);
            }
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program = *id,
            _ => {}
        }
    }
    Some(Filter { hook: hook?, program })
}

fn clsact(interface: u32) -> TcMessage {
    let mut message = TcMessage::with_index(interface.cast_signed());
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    message.header.parent = TcHandle::CLSACT;
    message.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    message
}

fn filter(interface: u32, egress: bool) -> TcMessage {
    let (side, priority) = match egress {
        true => (TcHandle::MIN_EGRESS, EGRESS_PRIORITY),
        false => (TcHandle::MIN_INGRESS, INGRESS_PRIORITY),
    };
    let header = TcHeader {
        index: interface.cast_signed(),
        handle: HANDLE,
        parent: TcHandle { major: TcHandle::CLSACT.major, minor: side },
        info: u32::from(priority) << 16 | u32::from(ETH_P_ALL),
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned())])
}
