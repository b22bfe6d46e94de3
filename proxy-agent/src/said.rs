//! What was said lately: an object that goes back and forth must not fill the log, nor the API server with events.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// Keeps back what is said again too soon.
#[derive(Debug)]
pub(crate) struct Said {
    /// How soon the same thing is said again.
    repeat: Duration,
    /// How many things are remembered.
    most: usize,
    hasher: RandomState,
    /// When each thing was said last, and how often it would have been since, by its hash: two that share one cost
    /// one of them a word.
    things: HashMap<u64, (Instant, u32)>,
}

impl Said {
    pub(crate) fn new(repeat: Duration, most: usize) -> Self {
        Self { repeat, most, hasher: RandomState::new(), things: HashMap::new() }
    }

    /// Whether `what` is to be said now, and then how often it was kept back since the last time. It counts as said
    /// then.
    pub(crate) fn is_news(&mut self, what: &impl Hash) -> Option<u32> {
        let now = Instant::now();
        if self.things.len() >= self.most {
            self.things.retain(|_, (said, _)| now - *said < self.repeat);
            if self.things.len() >= self.most {
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
                if now - *said < self.repeat {
                    *repeated += 1;
                    return None;
                }
                *said = now;
                Some(std::mem::take(repeated))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_a_minute() {
        let mut said = Said::new(MINUTE, 100);
        assert!(said.is_news(&"a").is_some());
        assert!(said.is_news(&"b").is_some());
        assert!(said.is_news(&"a").is_none());
        tokio::time::advance(MINUTE / 2).await;
        assert!(said.is_news(&"a").is_none());
        tokio::time::advance(MINUTE / 2).await;
        assert!(said.is_news(&"a").is_some(), "a minute after it was said, not after it was asked for");
        assert!(said.is_news(&"a").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_an_hour_with_the_count_of_what_was_kept_back() {
        let mut said = Said::new(65 * MINUTE, 100);
        assert_eq!(said.is_news(&"a"), Some(0));
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1000)).await;
            assert_eq!(said.is_news(&"a"), None);
        }
        assert_eq!(said.is_news(&"b"), Some(0));
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(said.is_news(&"a"), Some(3));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(said.is_news(&"a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        const MOST: usize = 16_384;
        let mut said = Said::new(MINUTE, MOST);
        for number in 0..3 * MOST {
            assert_eq!(said.is_news(&number), Some(0));
        }
        assert!(said.things.len() <= MOST);
    }
}
