//! One TCP connection that is used for long: megabytes to a server of the lab and back, every byte compared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Failure, TcpSession};
use super::place::Place;

/// Bytes of a request; the answer is a little longer. Each takes many segments.
const REQUEST: usize = 48 * 1024;

/// A connection on which nothing moves for so long has stalled.
const STALLED: Duration = Duration::from_secs(20);

/// A running transfer. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<StreamReport>>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct StreamReport {
    /// Who answered.
    pub endpoint: String,
    /// How the server saw the client.
    pub peer: Option<SocketAddr>,
    /// Bytes that came back as they were sent.
    pub bytes: u64,
    /// Why it ended before it was told to: a reset, a stall, another content.
    pub failure: Option<String>,
}

impl Stream {
    /// Connects from a place and goes on until it is stopped, resting so long between two requests.
    #[must_use]
    pub fn start(place: &Place, to: SocketAddr, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let bytes = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&bytes));
        let thread = place.spawn(move || {
            let mut report = StreamReport::default();
            if let Err(failure) = transfer(to, pause, &until, &count, &mut report) {
                report.failure = Some(failure);
            }
            report
        });
        Self { stop, bytes, thread: Some(thread) }
    }

    /// Waits until so many more bytes have come back; false when that takes longer, or has ended.
    #[must_use]
    pub fn wait_for_more(&self, bytes: u64, patience: Duration) -> bool {
        let (goal, deadline) = (self.bytes.load(Ordering::Relaxed) + bytes, Instant::now() + patience);
        while self.bytes.load(Ordering::Relaxed) < goal {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            if ended || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Stops it and hands over what came of it.
    ///
    /// # Panics
    /// When its thread has.
    #[must_use]
    pub fn stop(mut self) -> StreamReport {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap_or_else(|| unreachable!("only stop() and drop() take it"));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

fn transfer(
    to: SocketAddr,
    pause: Duration,
    stop: &AtomicBool,
    bytes: &AtomicU64,
    report: &mut StreamReport,
) -> Result<(), String> {
    let said = |failure: Failure| failure.to_string();
    let mut session = TcpSession::connect(to, STALLED).map_err(said)?;
    let mut request = vec![0; REQUEST];
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for (at, byte) in request.iter_mut().enumerate() {
            // Letters, in an order that differs from round to round; no end of a line among them.
            *byte = b'A' + u8::try_from((at / 26 + at + round) % 26).unwrap_or_default();
        }
        let answer = session.ask(&request).map_err(said)?;
        if answer.echo != request {
            return Err(format!("after {} bytes another content came back", report.bytes));
        }
        report.bytes += REQUEST as u64;
        bytes.store(report.bytes, Ordering::Relaxed);
        (report.endpoint, report.peer) = (answer.endpoint, Some(answer.peer));
        std::thread::sleep(pause);
    }
    Ok(())
}
