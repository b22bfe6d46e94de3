//! `run`, which is also what kube-proxy's own command line means.

mod ferroute_flags;
mod kube_proxy_flags;
mod resolve;
mod restart;
mod start;

#[cfg(test)]
mod tests;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::ArgMatches;

use self::{
    ferroute_flags::FerrouteFlags,
    kube_proxy_flags::{GoBool, KubeProxyFlags},
    resolve::Resolver,
};
use super::cleanup;
use crate::privileges::Unexpected;

/// Arguments of `proxy-agent run`, and of `kube-proxy`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// kube-proxy's configuration file, which may have a second document for what Ferroute has beyond it. It is
    /// followed as it changes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Write the configuration that comes of the file and the flags to a file, and exit.
    #[arg(long, value_name = "FILE")]
    write_config_to: Option<PathBuf>,

    /// Do what needs the most privileges, and exit: set the kernel's connection tracking, pin maps, load programs.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init_only: Option<GoBool>,

    /// Remove every pin and link, and exit.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cleanup: Option<GoBool>,

    /// What happens at a system call that the agent was not expected to make.
    #[arg(long, value_enum, env = "FERROUTE_UNEXPECTED_SYSTEM_CALL", default_value = "refuse", hide = true)]
    unexpected_system_call: Unexpected,

    #[command(flatten)]
    ferroute: FerrouteFlags,

    #[command(flatten)]
    kube_proxy: KubeProxyFlags,
}

/// By which name the binary was called: kube-proxy has defaults that Ferroute by itself has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// `proxy-agent run`.
    ProxyAgent,
    /// `kube-proxy`.
    KubeProxy,
}

pub(super) fn run(args: Args, matches: &ArgMatches, called: Called) -> Result<()> {
    let (cleanup, write_to) = (GoBool::is_set(args.cleanup), args.write_config_to.clone());
    let resolver = Resolver::new(args, KubeProxyFlags::given(matches), called);
    let resolved = resolver.resolve()?;
    if cleanup {
        return cleanup::remove(&resolved.settings.datapath.bpffs);
    }
    if let Some(file) = write_to {
        let text = resolved.configuration.to_yaml().context("writing the configuration as YAML")?;
        return fs::write(&file, text).with_context(|| format!("writing {}", file.display()));
    }
    start::start(&resolver, resolved)
}
