use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Flows, Lifetimes, Pass, monotonic_now, watch::Watch};
use crate::{
    datapath::{Error, Probe},
    privileges::{Duty, Privileges, warn_of},
};

/// Between two passes, and between two when a map is filling up.
const PAUSE: Duration = Duration::from_secs(5);
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// A pause is at least this many times as long as the pass before it: a tenth of a CPU is the most it takes.
const PAUSE_TO_PASS: u32 = 10;
/// Between two passes that look for halves of flows too.
const HALVES: Duration = Duration::from_secs(60);

/// A thread that lets go of expired flows, and reports what an operator should know of the packet path. It ends
/// when this is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    /// Nothing is ever sent: the other end sees it go.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// Starts with a pass, and says to `probe` what each has found.
    ///
    /// # Errors
    /// The counters cannot be read, or no thread can be made.
    pub(crate) fn start(
        flows: Flows,
        probe: Probe,
        lifetimes: Lifetimes,
        privileges: Privileges,
    ) -> Result<Self, Error> {
        let watch = Watch::new(probe.counters()?);
        let (stop, stopped) = mpsc::channel();
        let work = Work { flows, probe, lifetimes, watch, looked_for_halves: None, stopped };
        let thread = thread::Builder::new()
            .name("flows".to_owned())
            .spawn(move || {
                warn_of(privileges.limit(Duty::Serve));
                work.run();
            })
            .map_err(|source: io::Error| Error::Thread { what: "lets go of expired flows", source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked it has said so, and there is nothing left to do.
            let _ended = thread.join();
        }
    }
}

struct Work {
    flows: Flows,
    probe: Probe,
    lifetimes: Lifetimes,
    watch: Watch,
    looked_for_halves: Option<Instant>,
    stopped: Receiver<()>,
}

impl Work {
    fn run(mut self) {
        let mut failing = false;
        loop {
            let start = Instant::now();
            let pass = self.pass();
            let took = start.elapsed();
            let pause = match pass {
                Ok(pass) => {
                    failing = false;
                    if pass.expired > 0 {
                        tracing::debug!(
                            expired = pass.expired,
                            entries4 = pass.v4.entries,
                            entries6 = pass.v6.entries,
                            new = pass.new.entries,
                            ?took,
                            "let go of expired flows"
                        );
                    }
                    pause(&pass, took)
                }
                Err(error) => {
                    // Once for as long as it lasts: it comes back with every pass.
                    if !failing {
                        let error = anyhow::Error::new(error);
                        tracing::warn!("expired flows are not let go of: {error:#}; it is tried again");
                    }
                    failing = true;
                    PAUSE
                }
            };
            if self.stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn pass(&mut self) -> Result<Pass, Error> {
        let stopping = || self.stopped.try_recv() == Err(TryRecvError::Disconnected);
        let halves = self.looked_for_halves.is_none_or(|last| last.elapsed() >= HALVES);
        let pass = self.flows.collect_until(&self.lifetimes, monotonic_now(), halves, stopping)?;
        if halves {
            self.looked_for_halves = Some(Instant::now());
        }
        if pass.damaged > 0 {
            tracing::warn!(entries = pass.damaged, "deleted entries of the flow maps that made no sense");
        }
        self.probe.add_pass(&pass);
        for line in self.watch.after(&pass, self.probe.counters()?, Instant::now()) {
            tracing::warn!("{line}");
        }
        Ok(pass)
    }
}

/// How long to wait after a pass.
fn pause(pass: &Pass, took: Duration) -> Duration {
    let is_filling = [pass.v4, pass.v6].iter().any(|fill| fill.percent() >= 75);
    let pause = if is_filling { SHORT_PAUSE } else { PAUSE };
    pause.max(took * PAUSE_TO_PASS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::flows::Fill;

    #[test]
    fn a_map_that_fills_up_is_looked_at_more_often_but_never_all_the_time() {
        let filled = |entries| Pass { v6: Fill { entries, capacity: 100 }, ..Pass::default() };
        let took = Duration::from_millis(1);
        assert_eq!(pause(&filled(74), took), PAUSE);
        assert_eq!(pause(&filled(75), took), SHORT_PAUSE);
        assert_eq!(pause(&filled(100), Duration::from_millis(300)), Duration::from_secs(3));
        assert_eq!(pause(&filled(0), Duration::from_secs(2)), Duration::from_secs(20));
    }
}
