//! Ctrl-C, and SIGTERM and SIGHUP: leave nothing behind, then exit as shells expect.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::session;

static STOPPING: AtomicBool = AtomicBool::new(false);

/// From now on a signal that ends the process first takes it out of the lab's cgroups, removes them
/// and the files on disk, and then exits with 130 (128 + 2, as a shell reports Ctrl-C). Agents
/// and namespaces go with the process. Call it once, from a program: a test harness has its own ways.
pub fn exit_on_ctrl_c() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("starting a runtime for signals")?;
    let signals = {
        let _in_runtime = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>().context("listening for Ctrl-C")?
    };
    std::thread::Builder::new()
        .name("ctrl-c".to_owned())
        .spawn(move || {
            let received = signals.into_iter().map(|mut signal| Box::pin(async move { signal.recv().await }));
            runtime.block_on(futures::future::select_all(received));
            STOPPING.store(true, Ordering::SeqCst);
            eprintln!("stopped: removing the lab");
            super::agent::kill_all();
            session::abandon();
            std::process::exit(130);
        })
        .context("starting the thread that waits for Ctrl-C")?;
    Ok(())
}

/// Call it before reporting an error: while the lab is being removed, everything fails, and nobody
/// wants to read how. It then waits for the end of the process, which is near.
pub fn wait_if_stopping() {
    while STOPPING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
