use std::{fs, io, os::fd::BorrowedFd, path::Path};

use crate::datapath::sys;

const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// `BPF_F_BEFORE`: without a program to be before it means all of them.
const FIRST: u32 = 1 << 3;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// How a program is attached to a network interface by a link of its own that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before the programs of others. They see what a pod will see, as they did with NAT in the kernel's
    /// packet filter; after one that takes its packets away, ours would see none.
    TcxIngress,
    /// After the programs of others: once more they see what the pod has sent.
    TcxEgress,
    /// Run by the driver.
    XdpNative,
    /// Run by the kernel, for drivers that cannot.
    XdpGeneric,
}

impl Place {
    fn link_type(self) -> u32 {
        match self {
            Self::TcxIngress | Self::TcxEgress => BPF_LINK_TYPE_TCX,
            Self::XdpNative | Self::XdpGeneric => BPF_LINK_TYPE_XDP,
        }
    }

    fn attach_type(self) -> u32 {
        match self {
            Self::TcxIngress => BPF_TCX_INGRESS,
            Self::TcxEgress => BPF_TCX_EGRESS,
            Self::XdpNative | Self::XdpGeneric => BPF_XDP,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::TcxIngress => FIRST,
            Self::TcxEgress => 0,
            Self::XdpNative => XDP_FLAGS_DRV_MODE,
            Self::XdpGeneric => XDP_FLAGS_SKB_MODE,
        }
    }

    /// Whether a link is at this place. Of XDP it does not tell native from generic.
    fn is_of(self, shape: &sys::LinkShape, interface: u32) -> bool {
        let attach_type = if self.link_type() == BPF_LINK_TYPE_XDP { 0 } else { self.attach_type() };
        shape.link_type == self.link_type() && shape.interface() == (interface, attach_type)
    }
}

/// A program of ours, loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded<'a> {
    pub(super) program: BorrowedFd<'a>,
    /// Its number.
    pub(super) id: u32,
}

/// Puts a program behind the link that is pinned at `pin`, in one step, or attaches it and pins the link.
/// True when something had to be done.
pub(super) fn attach(program: Loaded<'_>, place: Place, interface: u32, pin: &Path) -> io::Result<bool> {
    match sys::open_pin(pin) {
        Ok(link) => match sys::link_shape(&link) {
            Ok(shape) if place.is_of(&shape, interface) => {
                if shape.program == program.id {
                    return Ok(false);
                }
                return sys::link_update(link, program.program).map(|()| true);
            }
            // Of an interface that is gone: indexes are not used again, but by those who ask for one.
            _ => {
                drop(link);
                detach(pin)?;
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let link = sys::link_create_on_interface(program.program, interface, place.attach_type(), place.flags())?;
    sys::pin(link, pin).map(|()| true)
}

/// Takes a pinned link off its interface and removes the pin.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    if let Ok(link) = sys::open_pin(pin) {
        // One whose interface is gone has nothing to detach.
        let _dead = sys::link_detach(link);
    }
    fs::remove_file(pin)
}

/// Number of the program behind the link that is pinned at `pin`, if it is on the interface.
pub(super) fn program(pin: &Path, place: Place, interface: u32) -> Option<u32> {
    let shape = sys::link_shape(sys::open_pin(pin).ok()?).ok()?;
    place.is_of(&shape, interface).then_some(shape.program)
}

/// Whether the kernel has tcx, found by asking for it on an interface that there cannot be.
pub(super) fn has_tcx(program: BorrowedFd<'_>) -> bool {
    const NO_INTERFACE: u32 = i32::MAX.cast_unsigned();
    let refused = sys::link_create_on_interface(program, NO_INTERFACE, BPF_TCX_INGRESS, 0).err();
    refused.is_some_and(|error| error.raw_os_error() == Some(libc::ENODEV))
}
