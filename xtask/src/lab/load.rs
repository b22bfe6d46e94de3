//! Load: requests one after the other from a place, while something else happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Failure, Via, ask_within};
use super::place::Place;

/// What a load generator does.
#[derive(Clone, Copy, Debug)]
pub struct LoadSpec {
    /// How requests are sent; each on a new socket.
    pub via: Via,
    /// To whom.
    pub to: SocketAddr,
    /// Wait between two requests.
    pub pause: Duration,
    /// How long each step of a request may take.
    pub patience: Duration,
    /// It stops by itself after so many requests, and after `longest`.
    pub most: u64,
    /// See `most`.
    pub longest: Duration,
}

impl LoadSpec {
    /// A request a millisecond, at most 100,000 and one minute long.
    #[must_use]
    pub fn new(via: Via, to: SocketAddr) -> Self {
        Self {
            via,
            to,
            pause: Duration::from_millis(1),
            patience: Duration::from_secs(3),
            most: 100_000,
            longest: Duration::from_secs(60),
        }
    }
}

/// A running load generator. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<LoadReport>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Answered requests by the name of the endpoint.
    pub by_endpoint: BTreeMap<String, u64>,
    /// Requests that failed. Only the first 100 are kept.
    pub failures: Vec<Failure>,
    /// How many failed.
    pub failed: u64,
    /// The longest that an answered request took.
    pub slowest: Duration,
}

impl LoadReport {
    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.by_endpoint.values().sum()
    }

    /// How many requests were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.answered() + self.failed
    }
}

impl Load {
    /// Starts a generator in a place.
    #[must_use]
    pub fn start(place: &Place, spec: LoadSpec) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = place.spawn(move || generate(spec, &until, &count));
        Self { stop, answered, thread: Some(thread) }
    }

    /// How many requests were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests are answered; false when that takes longer than `patience`.
    #[must_use]
    pub fn wait_for_more(&self, more: u64, patience: Duration) -> bool {
        let (goal, deadline) = (self.answered() + more, Instant::now() + patience);
        while self.answered() < goal {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Stops it and hands over what came of it.
    ///
    /// # Panics
    /// When the generator's thread has.
    #[must_use]
    pub fn stop(mut self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap_or_else(|| unreachable!("only stop() and drop() take it"));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

fn generate(spec: LoadSpec, stop: &AtomicBool, answered: &AtomicU64) -> LoadReport {
    let mut report = LoadReport::default();
    let deadline = Instant::now() + spec.longest;
    for _ in 0..spec.most {
        let begin = Instant::now();
        if stop.load(Ordering::Relaxed) || begin > deadline {
            break;
        }
        match ask_within(spec.via, spec.to, spec.patience) {
            Ok(answer) => {
                *report.by_endpoint.entry(answer.endpoint).or_default() += 1;
                report.slowest = report.slowest.max(begin.elapsed());
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => {
                report.failed += 1;
                if report.failures.len() < 100 {
                    report.failures.push(failure);
                }
            }
        }
        std::thread::sleep(spec.pause);
    }
    report
}
