//! End to end: the real agent and its real programs, in a lab of network namespaces, with real traffic.
//!
//! `cargo xtask test` builds the agent and says where it is in `FERROUTE_AGENT`. The tests need root.

mod acceptance;
mod affinity;
mod api_failures;
mod api_objects;
mod changes;
mod configuration;
mod events;
mod fixture;
mod health;
mod health_check_ports;
mod helpers;
mod hints;
mod http;
mod image;
mod inspection;
mod lifecycle;
mod limits;
mod links;
mod manifests;
mod metrics;
mod packet;
mod pins;
mod plan;
mod policies;
mod privileges;
mod scale;
mod scene;
mod socket_path;
mod stale;
mod takeover;
mod world;
