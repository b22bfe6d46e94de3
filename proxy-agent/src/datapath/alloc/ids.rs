use std::collections::VecDeque;

/// Hands out ids from 1 up to, but not including, a capacity. 0 is never given out: it stands for nothing,
/// and what a zeroed map entry names is so never in use.
#[derive(Debug)]
pub(crate) struct Ids {
    capacity: u32,
    /// Every id from here on was never given out.
    next: u32,
    /// Oldest first, so that an id rests as long as possible.
    free: VecDeque<u32>,
    resting: Vec<u32>,
}

impl Ids {
    /// All ids below `capacity` are free.
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, next: 1, free: VecDeque::new(), resting: Vec::new() }
    }

    /// All ids below `capacity` are free but for `used`.
    pub(crate) fn with_used(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let mut used: Vec<u32> = used.into_iter().filter(|id| (1..capacity).contains(id)).collect();
        used.sort_unstable();
        let mut ids = Self::new(capacity);
        for id in used {
            ids.free.extend(ids.next..id);
            ids.next = ids.next.max(id + 1);
        }
        ids
    }

    /// An id that is nobody's, or `None` when all are given out or resting.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_front() {
            return Some(id);
        }
        let id = self.next;
        (id < self.capacity).then(|| {
            self.next += 1;
            id
        })
    }

    /// Takes back an id that no program has seen: it can be given out at once.
    pub(crate) fn put_back(&mut self, id: u32) {
        self.free.push_front(id);
    }

    /// Takes back an id that programs may still hold: it rests until [`Self::release`].
    pub(crate) fn rest(&mut self, id: u32) {
        self.resting.push(id);
    }

    /// A grace period has passed since the last [`Self::rest`].
    pub(crate) fn release(&mut self) {
        self.free.extend(self.resting.drain(..));
    }

    /// How many ids could be given out now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.capacity.saturating_sub(self.next) as usize
    }

    /// How many ids wait for a grace period.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_and_the_capacity_are_never_given_out() {
        let mut ids = Ids::new(4);
        assert_eq!([ids.take(), ids.take(), ids.take(), ids.take()], [Some(1), Some(2), Some(3), None]);
        assert_eq!(Ids::new(0).take(), None);
    }

    #[test]
    fn used_ids_are_left_alone() {
        let mut ids = Ids::with_used(6, [4, 2, 2, 0, 9]);
        assert_eq!([ids.take(), ids.take(), ids.take(), ids.take()], [Some(1), Some(3), Some(5), None]);
    }

    #[test]
    fn a_resting_id_comes_back_after_the_grace_period_only() {
        let mut ids = Ids::new(2);
        let id = ids.take().unwrap();
        ids.rest(id);
        assert_eq!((ids.take(), ids.resting()), (None, 1));
        ids.release();
        assert_eq!(ids.take(), Some(id));
    }

    proptest! {
        #[test]
        fn no_id_twice_and_none_lost(steps in prop::collection::vec(0..4_u8, 0..300), capacity in 1..40_u32) {
            let mut ids = Ids::new(capacity);
            let (mut held, mut seen_by_programs) = (Vec::new(), HashSet::new());
            for step in steps {
                match step {
                    0 | 1 => if let Some(id) = ids.take() {
                        prop_assert!(id > 0 && id < capacity && !held.contains(&id));
                        prop_assert!(!seen_by_programs.contains(&id));
                        held.push(id);
                    },
                    2 => if !held.is_empty() {
                        let id = held.swap_remove(0);
                        seen_by_programs.insert(id);
                        ids.rest(id);
                    },
                    _ => { seen_by_programs.clear(); ids.release(); }
                }
                prop_assert_eq!(ids.available() + ids.resting() + held.len(), capacity as usize - 1);
            }
        }
    }
}
