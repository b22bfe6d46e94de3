//! `cargo xtask`: builds, runs, tests and measures Ferroute.

fn main() -> std::process::ExitCode {
    if xtask::vm::is_guest() {
        xtask::vm::init();
    }
    xtask::cli::main()
}
