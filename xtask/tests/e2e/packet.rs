//! The packet path: what no local socket makes. Clients outside the cluster, SCTP, and what comes back.

mod direct;
pub(crate) mod exposed;
mod headers;
mod kernel_sctp;
mod links;
mod matrix;
pub(crate) mod policies;
pub(crate) mod probe;
mod restarts;
mod rivals;
mod sizes;
pub(crate) mod stage;
pub(crate) mod udp;
mod vlans;
