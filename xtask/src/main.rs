//! `cargo xtask`: builds, runs, tests and measures Ferroute.

fn main() -> std::process::ExitCode {
    xtask::cli::main()
}
