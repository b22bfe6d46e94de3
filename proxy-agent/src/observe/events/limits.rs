use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// How soon the same thing is said again: the API server keeps an event for an hour.
const REPEAT: Duration = Duration::from_secs(65 * 60);
/// How many things are remembered.
const MOST: usize = 8192;
/// Events in a row,
const BURST: u32 = 25;
/// and then one in so long a time.
const EACH: Duration = Duration::from_secs(5);

/// What has been said lately.
#[derive(Debug, Default)]
pub(super) struct Told {
    hasher: RandomState,
    /// When each thing was said last, and how often it would have been since, by its hash: two that share one cost
    /// an event.
    things: HashMap<u64, (Instant, u32)>,
}

impl Told {
    /// Whether `what` is to be said now, and then how often it was kept back since the last time.
    pub(super) fn is_news(&mut self, what: &impl Hash) -> Option<u32> {
        let now = Instant::now();
        if self.things.len() >= MOST {
            self.things.retain(|_, (said, _)| now - *said < REPEAT);
            if self.things.len() >= MOST {
                self.things.clear();
            }
        }
        match self.things.entry(self.hasher.hash_one(what)) {
            Entry::Vacant(entry) => {
                entry.insert((now, 0));
                Some(0)
            }
            Entry::Occupied(mut entry) => {
                let (said, repeated) = entry.get_mut();
                if now - *said < REPEAT {
                    *repeated += 1;
                    return None;
                }
                *said = now;
                Some(std::mem::take(repeated))
            }
        }
    }
}

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
    async fn the_same_is_said_once_an_hour_with_the_count_of_what_was_kept_back() {
        let mut told = Told::default();
        assert_eq!(told.is_news(&"a"), Some(0));
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1000)).await;
            assert_eq!(told.is_news(&"a"), None);
        }
        assert_eq!(told.is_news(&"b"), Some(0));
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(told.is_news(&"a"), Some(3));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told.is_news(&"a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let mut told = Told::default();
        for number in 0..3 * MOST {
            assert_eq!(told.is_news(&number), Some(0));
        }
        assert!(told.things.len() <= MOST);
    }

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
