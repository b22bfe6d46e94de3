//! Netlink without a runtime, for the protocols that nobody has a crate for: nf_tables, ipset, IPVS.

mod socket;
mod wire;

pub(super) use socket::{Failure, Message, Socket};
pub(super) use wire::{Attributes, attributes, find, number16, number32, number64, text};
