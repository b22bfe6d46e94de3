//! Where API objects come from.

pub mod manifests;
