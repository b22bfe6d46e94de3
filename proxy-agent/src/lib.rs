//! The Ferroute node agent: watches Services, EndpointSlices and its Node, and keeps the maps of the eBPF
//! programs in step with them.
//!
//! Data flows one way, and each module knows only the one before it:
//! `source` (API server or folder) → `state` (slim objects, indexed) → `plan` (pure: what should be
//! programmed) → `datapath` (maps and attachments; the only module that touches the kernel). What all of them are
//! to do comes from `config`.

pub mod cli;
pub mod config;
pub mod datapath;
pub mod host;
pub mod links;
pub mod logging;
pub mod observe;
pub mod plan;
pub mod privileges;
pub mod run;
mod said;
pub mod source;
pub mod state;
pub mod takeover;
