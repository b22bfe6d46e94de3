//! Which network links the node has, and what each leads to.
//!
//! [`watch()`] follows the kernel's news of links, addresses and routes, and hands on what there is
//! ([`Facts`]); [`classify()`] is pure and makes a [`Topology`] of it.

mod classify;
mod dump;
mod facts;
mod offloads;
mod topology;
mod uplinks;
mod watch;

pub use classify::classify;
pub use dump::read_once;
pub use facts::{Facts, LinkFacts, RouteFacts, RouteKind};
pub use topology::{Link, Topology};
pub use uplinks::Uplinks;
pub use watch::watch;
