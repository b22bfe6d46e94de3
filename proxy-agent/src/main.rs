//! `proxy-agent`, the Ferroute node agent.

fn main() -> std::process::ExitCode {
    proxy_agent::cli::main()
}
