//! Builds, runs, tests and measures Ferroute.

pub mod api_server;
pub mod bench;
pub mod build;
pub mod check;
pub mod cli;
pub mod demo;
pub mod ebpf;
pub mod image;
pub mod kind;
pub mod lab;
pub mod progress;
pub mod toolchain;
pub mod tools;
pub mod vm;
pub mod workspace;
