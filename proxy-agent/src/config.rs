//! Configuration: kube-proxy's own file, a second document in it for what Ferroute has beyond it, and the
//! [`Settings`] that come of both. docs/configuration.md has a row for every field and flag.
//!
//! Flags are written into a [`Configuration`] too, so that there is one way from what was asked for to what is
//! done, and `--write-config-to` shows it.

mod check;
mod document;
mod duration;
mod ferroute;
mod follow;
mod kube_proxy;
mod meaning;
mod settings;

#[cfg(test)]
mod tests;

use std::{fmt, fs, io, path::Path};

pub use check::MOST_FLOWS;
pub use duration::GoDuration;
pub use ferroute::{FerrouteConfiguration, FlowLifetimes, MapCapacities, PrivilegeChoice};
pub use follow::Follower;
pub use kube_proxy::{Conntrack, KubeProxyConfiguration, VModule};
pub use settings::{Logging, Servers, Settings};

/// What a file, or flags, ask for: every field has a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// kube-proxy's own.
    pub kube_proxy: KubeProxyConfiguration,
    /// What Ferroute adds.
    pub ferroute: FerrouteConfiguration,
    /// The API server's URL, which only the flag `--master` can name; empty for the kubeconfig's.
    pub server: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("reading the configuration file {file}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// What stands there does not do.
    #[error("{origin} cannot be used:{mistakes}")]
    Wrong {
        /// A file, or flags.
        origin: String,
        /// All that is wrong, with paths.
        mistakes: Mistakes,
    },
}

/// What is wrong with a configuration, each with its path.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => write!(f, " {one}"),
            all => all.iter().try_for_each(|mistake| write!(f, "\n  {mistake}")),
        }
    }
}

impl Configuration {
    /// Reads a file: YAML or JSON, kube-proxy's document, Ferroute's, or both in any order.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Wrong`] with everything that is.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|mistakes| Error::Wrong { origin: file, mistakes }),
            Err(source) => Err(Error::Read { file, source }),
        }
    }

    /// The same with the text of a file.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let documents = document::Documents::read(text);
        let is_empty =
            documents.kube_proxy.is_none() && documents.ferroute.is_none() && documents.mistakes.is_empty();
        let mut configuration = Self {
            kube_proxy: documents.kube_proxy.unwrap_or_default(),
            ferroute: documents.ferroute.unwrap_or_default(),
            server: String::new(),
        };
        configuration.kube_proxy.fill_in();
        let mut mistakes = documents.mistakes;
        if is_empty {
            mistakes.push("there is no KubeProxyConfiguration in it".to_owned());
        }
        mistakes.extend(check::check(&configuration));
        if mistakes.is_empty() { Ok(configuration) } else { Err(Mistakes(mistakes)) }
    }

    /// What the agent is to do.
    ///
    /// # Errors
    /// All that is wrong with it, which of a file only flags can have changed.
    pub fn settings(&self) -> Result<Settings, Mistakes> {
        let mistakes = check::check(self);
        if mistakes.is_empty() { Ok(Settings::new(self)) } else { Err(Mistakes(mistakes)) }
    }

    /// A sentence for each field that is set to something other than its default and has no effect, with the
    /// reason.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        meaning::without_meaning(&self.kube_proxy)
    }

    /// As a file that [`Self::read`] reads.
    ///
    /// # Errors
    /// Never, as it is made of names, numbers and texts.
    pub fn to_yaml(&self) -> Result<String, serde_yaml_ng::Error> {
        let documents =
            [serde_yaml_ng::to_string(&self.kube_proxy)?, serde_yaml_ng::to_string(&self.ferroute)?];
        Ok(documents.join("---\n"))
    }
}
