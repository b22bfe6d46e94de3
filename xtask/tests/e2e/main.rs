//! End to end: the real agent and its real programs, in a lab of network namespaces, with real traffic.
//!
//! `cargo xtask test` builds the agent and says where it is in `FERROUTE_AGENT`. The tests need root.

mod acceptance;
mod affinity;
mod fixture;
mod hints;
mod policies;
mod socket_path;
mod world;
