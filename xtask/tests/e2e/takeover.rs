//! Nodes on which kube-proxy has been: what it left is removed and nothing else, and no traffic notices.

mod leftovers;
mod rules;
mod traffic;
