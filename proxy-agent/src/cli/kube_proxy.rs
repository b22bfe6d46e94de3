//! The command line of kube-proxy, for an image in which the binary stands in kube-proxy's place.

use std::{ffi::OsString, path::Path};

use anyhow::Result;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use super::run::{self, Called};

/// File name by which the binary is called in kube-proxy's place.
const NAME: &str = "kube-proxy";

/// The release of Kubernetes whose kube-proxy this follows, and our own; scripts read the first two words.
const VERSION: &str = concat!("v1.36.2 (Ferroute ", env!("CARGO_PKG_VERSION"), ")");

/// Kubernetes Services with eBPF, on this node, in kube-proxy's place.
#[derive(Parser, Debug)]
#[command(name = NAME, display_name = "Kubernetes", version = VERSION, disable_version_flag = true)]
struct Cli {
    /// Print the version and exit.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(flatten)]
    run: run::Args,
}

/// Whether the binary was called as kube-proxy.
pub(super) fn is_called(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|program| Path::new(program).file_name() == Some(NAME.as_ref()))
}

/// Does what kube-proxy would with the same arguments.
pub(super) fn run(arguments: Vec<OsString>) -> Result<()> {
    let arguments = arguments.into_iter().map(with_dashes);
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    run::run(cli.run, &matches, Called::KubeProxy)
}

/// kube-proxy takes `--proxy_mode` for `--proxy-mode`.
fn with_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text) if text.starts_with("--") => {
            let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
            (name.replace('_', "-") + value).into()
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_name_of_the_file_that_counts() {
        for (program, is_it) in [
            ("/usr/local/bin/kube-proxy", true),
            ("kube-proxy", true),
            ("/usr/local/bin/proxy-agent", false),
            ("/kube-proxy/proxy-agent", false),
        ] {
            assert_eq!(is_called(&[program.into(), "--v=2".into()]), is_it, "{program}");
        }
    }

    #[test]
    fn flags_are_as_kube_proxy_takes_them() {
        let line = "kube-proxy --config=/var/lib/kube-proxy/config.conf --hostname_override=a_b --v=2 \
                    --masquerade-all --cleanup=false --oom-score-adj=-998 --init-only";
        let arguments = line.split_whitespace().map(|argument| with_dashes(argument.into()));
        let matches = Cli::command().try_get_matches_from(arguments).unwrap();
        assert!(Cli::from_arg_matches(&matches).is_ok());
        for wrong in ["kube-proxy something", "kube-proxy run", "kube-proxy --no-such-flag"] {
            assert!(Cli::command().try_get_matches_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_version_is_one_that_scripts_can_read() {
        let shown = Cli::command().try_get_matches_from(["kube-proxy", "--version"]).unwrap_err().to_string();
        assert!(shown.starts_with("Kubernetes v1.36.2 (Ferroute "), "{shown}");
    }
}
