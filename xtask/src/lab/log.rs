//! What an agent writes, kept in memory: to wait for a line, and to show the last ones on failure.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Older lines than this many are forgotten.
const KEPT: usize = 20_000;

/// A line that an agent wrote.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// As it was written.
    pub text: String,
    /// Its JSON, if it is.
    pub json: Option<Value>,
}

impl LogLine {
    /// The message, wherever the format puts it; the whole line if it is no JSON.
    #[must_use]
    pub fn message(&self) -> &str {
        self.field("message").and_then(Value::as_str).unwrap_or(&self.text)
    }

    /// A field of the line, wherever the format puts it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        let json = self.json.as_ref()?;
        json.get("fields").and_then(|fields| fields.get(name)).or_else(|| json.get(name))
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, field: &str) -> Option<f64> {
        self.field(field)?.as_f64()
    }

    /// A field that is a string.
    #[must_use]
    pub fn string(&self, field: &str) -> Option<&str> {
        self.field(field)?.as_str()
    }
}

#[derive(Debug, Default)]
struct Lines {
    forgotten: usize,
    kept: VecDeque<LogLine>,
}

/// What one agent has written, and goes on writing. It can be read after the agent's end.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

impl Log {
    /// Reads an output of the agent to its end, in the background.
    pub(super) fn follow(&self, output: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                let Ok(line) = line else { return };
                log.push(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }

    /// How many lines there were: where [`wait`](Self::wait) can begin.
    pub(super) fn mark(&self) -> usize {
        let lines = self.lock();
        lines.forgotten + lines.kept.len()
    }

    /// Waits for a line at or after the mark; none in time is None.
    pub(super) fn wait(
        &self,
        mark: usize,
        patience: Duration,
        wanted: impl Fn(&LogLine) -> bool,
    ) -> Option<LogLine> {
        let deadline = Instant::now() + patience;
        let mut next = mark;
        let mut lines = self.lock();
        loop {
            let skip = next.saturating_sub(lines.forgotten);
            if let Some(found) = lines.kept.iter().skip(skip).find(|line| wanted(line)) {
                return Some(found.clone());
            }
            next = lines.forgotten + lines.kept.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All lines that are not forgotten.
    #[must_use]
    pub fn all(&self) -> Vec<LogLine> {
        self.lock().kept.iter().cloned().collect()
    }

    /// The last lines, indented, to go below an error.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = self.lock();
        let from = lines.kept.len().saturating_sub(count);
        let mut tail = String::new();
        for line in lines.kept.iter().skip(from) {
            let _infallible = write!(tail, "\n    {}", line.text);
        }
        if tail.is_empty() { "\n    (nothing)".to_owned() } else { tail }
    }

    fn push(&self, text: String) {
        let json = serde_json::from_str(&text).ok().filter(Value::is_object);
        let mut lines = self.lock();
        if lines.kept.len() == KEPT {
            lines.kept.pop_front();
            lines.forgotten += 1;
        }
        lines.kept.push_back(LogLine { text, json });
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
