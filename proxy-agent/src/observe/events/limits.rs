use std::time::Duration;

use tokio::time::Instant;

/// Events in a row,
const BURST: u32 = 25;
/// and then one in so long a time.
const EACH: Duration = Duration::from_secs(5);

/// How many events may be sent, whatever they say: a token bucket.
#[derive(Debug)]
pub(super) struct Rate {
    left: u32,
    filled: Instant,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self { left: BURST, filled: Instant::now() }
    }

    /// Whether one more may be sent now; it counts as sent.
    pub(super) fn take(&mut self) -> bool {
        let periods = self.filled.elapsed().as_secs() / EACH.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(periods).min(BURST);
        self.filled = if self.left == BURST { Instant::now() } else { self.filled + EACH * periods };
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_one_at_a_time() {
        let mut rate = Rate::new();
        let take = |rate: &mut Rate| (0..100).filter(|_| rate.take()).count();
        assert_eq!(take(&mut rate), 25);
        for (seconds, expected) in [(4, 0), (1, 1), (12, 2), (3, 1), (10_000, 25)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(take(&mut rate), expected, "after {seconds} s more");
        }
    }
}
