use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(10);

/// How long to wait before the next try: 100 to 200 ms at first, doubled with each failure, never above 10 s.
/// A random half keeps the nodes of a cluster from coming back to a restarted server together.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// After something has worked.
    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// The wait after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let most = self.0;
        self.0 = (most * 2).min(LAST);
        most / 2 + up_to(most / 2)
    }
}

/// A random part of `most`.
pub(crate) fn up_to(most: Duration) -> Duration {
    // Each RandomState has keys of its own; how good this randomness is matters to nobody.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    most.mul_f64(f64::from(u16::try_from(random).unwrap_or(0)) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_start_again() {
        let mut backoff = Backoff::default();
        for most in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let most = Duration::from_millis(most);
            let wait = backoff.next();
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
