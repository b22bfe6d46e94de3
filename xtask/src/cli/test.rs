use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::progress::{say, stream};
use crate::toolchain::Purpose;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Run only the tests whose name contains one of these.
    filters: Vec<String>,
    /// Leave out the end-to-end tests (those in xtask/tests), which need root.
    #[arg(long)]
    unit: bool,
    /// Arguments for the test programs, such as `--nocapture`.
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    if !root && !args.unit {
        bail!(
            "the end-to-end tests make network namespaces and load eBPF programs, which needs root: \
             run `sudo -E env PATH=\"$PATH\" cargo xtask test`, or `cargo xtask test --unit` for the rest"
        );
    }
    let workspace = Workspace::find()?;
    let purpose = if args.unit { Purpose::Build } else { Purpose::Test };
    let agent = build::everything(&workspace, purpose)?;
    say(if args.unit { "tests that need no root" } else { "all tests, as root" });
    let mut cargo = workspace.host_cargo("test");
    // One failure must not hide the others.
    cargo.arg("--no-fail-fast").env("FERROUTE_AGENT", agent);
    if args.unit {
        cargo.args(unit_selection(workspace.root())?);
    }
    cargo.arg("--").args(&args.filters).args(&args.rest);
    stream(&mut cargo)
}

/// Every unit test, and the integration tests of every package but xtask.
fn unit_selection(root: &Path) -> Result<Vec<String>> {
    let mut selection = vec!["--lib".to_owned()];
    for package in ["proxy-common", "proxy-agent"] {
        let folder = root.join(package).join("tests");
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "rs")
                && let Some(name) = path.file_stem()
            {
                selection.extend(["--test".to_owned(), name.to_string_lossy().into_owned()]);
            }
        }
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn filters_and_arguments_for_the_test_programs() {
        let args = Line::parse_from(["test", "--unit", "plan", "slots", "--", "--nocapture"]).args;
        assert!(args.unit);
        assert_eq!(args.filters, ["plan", "slots"]);
        assert_eq!(args.rest, ["--nocapture"]);
    }

    #[test]
    fn end_to_end_tests_are_not_unit_tests() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["proxy-agent/tests/world", "xtask/tests"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for file in ["proxy-agent/tests/plan.rs", "proxy-agent/tests/notes.md", "xtask/tests/paths.rs"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        assert_eq!(unit_selection(root.path()).unwrap(), ["--lib", "--test", "plan"]);
    }
}
