//! What the host and the guest agree on: where things lie in the initramfs, and what the guest prints.

use std::path::Path;

/// The statically linked agent.
pub(super) const AGENT: &str = "bin/proxy-agent";
/// The folder of the programs that tests may call.
pub(super) const BIN: &str = "bin";
/// The folder of kernel modules, to be loaded in the order of their names.
pub(super) const MODULES: &str = "modules";
/// The folder of those that are loaded for [`LATE_TESTS`].
pub(super) const LATER_MODULES: &str = "modules-later";
/// In the names of tests that are run after all others, with more modules.
pub(super) const LATE_TESTS: &str = "kernel_sctp";
/// The folder of test programs.
pub(super) const TESTS: &str = "tests";
/// The arguments for each test program, each ended by a zero byte. Also marks the root as ours.
pub(super) const ARGUMENTS: &str = "ferroute-test-arguments";

/// Begins the line by which the guest says that it came to the end; the number of failed test programs
/// follows.
pub(super) const DONE: &str = "DONE failed=";

/// Whether this process is the first of a guest that [`run`](super::run()) started: then the program has
/// to call [`init`](super::init()) and nothing else.
///
/// To be process 1 is not enough: a container may start with any program.
#[must_use]
pub fn is_guest() -> bool {
    std::process::id() == 1 && Path::new("/").join(ARGUMENTS).exists()
}
