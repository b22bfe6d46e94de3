use std::path::Path;

use anyhow::{Context, Result};

use super::{Args, Called, kube_proxy_flags::KubeProxyFlags};
use crate::{
    config::{Configuration, Conntrack, Error, Settings},
    privileges::Privileges,
};

/// Makes settings of the configuration file, if there is one, and the flags.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) args: Args,
    /// kube-proxy's flags that are on the command line.
    given: Vec<String>,
    called: Called,
}

/// What has come of them.
#[derive(Debug)]
pub(super) struct Resolved {
    /// What stands in the file, without the flags.
    pub(super) file: Option<Configuration>,
    /// With the flags.
    pub(super) configuration: Configuration,
    pub(super) settings: Settings,
    /// What is set to no effect, and why.
    pub(super) said: Vec<String>,
}

impl Resolver {
    pub(super) fn new(args: Args, given: Vec<String>, called: Called) -> Self {
        Self { args, given, called }
    }

    /// The configuration file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.args.config.as_deref()
    }

    /// Reads the file, if there is one, and takes the flags to it.
    pub(super) fn resolve(&self) -> Result<Resolved> {
        let file = self.file().map(Configuration::read).transpose()?;
        self.with(file)
    }

    /// Takes the flags to what stands in the file.
    pub(super) fn with(&self, file: Option<Configuration>) -> Result<Resolved> {
        let flags = &self.args.kube_proxy;
        let mut said = flags.without_field();
        let mut configuration = file.clone().unwrap_or_default();
        let applied = if file.is_some() {
            let ignored = KubeProxyFlags::ignored_with_a_file(&self.given);
            said.extend(ignored.map(|flag| {
                format!("--{flag} has no effect beside --config, as with kube-proxy: say it in the file")
            }));
            flags.apply_besides_a_file(&mut configuration)
        } else {
            // Ferroute has no need of the kernel's connection tracking: it is changed for who asks.
            if self.called == Called::ProxyAgent {
                configuration.kube_proxy.conntrack = Conntrack::untouched();
            }
            flags.apply(&mut configuration)
        };
        applied.map_err(anyhow::Error::msg)?;
        self.args.ferroute.apply(&mut configuration.ferroute);
        let mut settings = configuration
            .settings()
            .map_err(|mistakes| Error::Wrong { origin: "what the flags say".to_owned(), mistakes })
            .context("taking flags and configuration together")?;
        if let Privileges::Drop(unexpected) = &mut settings.datapath.privileges {
            *unexpected = self.args.unexpected_system_call;
        }
        settings.datapath.or_own_cgroup = self.called == Called::KubeProxy;
        said.extend(configuration.without_effect());
        Ok(Resolved { file, configuration, settings, said })
    }
}
