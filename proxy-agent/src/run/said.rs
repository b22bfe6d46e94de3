use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// How soon the same thing is said again.
const REPEAT: Duration = Duration::from_secs(60);
/// How many things are remembered.
const MOST: usize = 16_384;

/// What has been said lately: an object that goes back and forth must not fill the log.
#[derive(Debug, Default)]
pub(super) struct Said {
    hasher: RandomState,
    /// When each thing was said last, by its hash: two that share one cost a line in the log.
    times: HashMap<u64, Instant>,
}

impl Said {
    /// Whether `what` is worth saying now. It counts as said then.
    pub(super) fn is_news(&mut self, what: &impl Hash) -> bool {
        let now = Instant::now();
        if self.times.len() >= MOST {
            self.times.retain(|_, said| now - *said < REPEAT);
            if self.times.len() >= MOST {
                self.times.clear();
            }
        }
        let hash = self.hasher.hash_one(what);
        let is_news = self.times.get(&hash).is_none_or(|said| now - *said >= REPEAT);
        if is_news {
            self.times.insert(hash, now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_a_minute() {
        let mut said = Said::default();
        assert!(said.is_news(&"a"));
        assert!(said.is_news(&"b"));
        assert!(!said.is_news(&"a"));
        tokio::time::advance(REPEAT / 2).await;
        assert!(!said.is_news(&"a"));
        tokio::time::advance(REPEAT / 2).await;
        assert!(said.is_news(&"a"), "a minute after it was said, not after it was asked for");
        assert!(!said.is_news(&"a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let mut said = Said::default();
        for number in 0..3 * MOST {
            assert!(said.is_news(&number));
        }
        assert!(said.times.len() <= MOST);
    }
}
