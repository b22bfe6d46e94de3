use std::collections::{BTreeMap, BTreeSet};

use proxy_common::SlotRange;

/// Hands out runs of a flat space: the smallest free run that is long enough, neighbours joined when they
/// come back. Every step is logarithmic in the number of free runs.
#[derive(Debug)]
pub(crate) struct Ranges {
    by_base: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
    /// The lengths of all of them.
    free: u32,
    resting: Vec<SlotRange>,
}

impl Ranges {
    /// A space of `capacity` slots, all free.
    pub(crate) fn new(capacity: u32) -> Self {
        let (by_base, by_len) = (BTreeMap::new(), BTreeSet::new());
        let mut ranges = Self { by_base, by_len, free: 0, resting: Vec::new() };
        ranges.insert(SlotRange { base: 0, len: capacity });
        ranges
    }

    /// A run of `len` slots that is nobody's, or `None` when no free run is that long. The empty run is
    /// always there and costs nothing.
    pub(crate) fn take(&mut self, len: u32) -> Option<SlotRange> {
        if len == 0 {
            return Some(SlotRange::default());
        }
        let (free_len, base) = *self.by_len.range((len, 0)..).next()?;
        self.remove(SlotRange { base, len: free_len });
        self.insert(SlotRange { base: base + len, len: free_len - len });
        Some(SlotRange { base, len })
    }

    /// Takes exactly this run; false, and nothing taken, when part of it is not free.
    pub(crate) fn reserve(&mut self, range: SlotRange) -> bool {
        let SlotRange { base, len } = range;
        if len == 0 {
            return true;
        }
        let Some((&free_base, &free_len)) = self.by_base.range(..=base).next_back() else { return false };
        let (Some(end), free_end) = (base.checked_add(len), free_base + free_len) else { return false };
        if end > free_end {
            return false;
        }
        self.remove(SlotRange { base: free_base, len: free_len });
        self.insert(SlotRange { base: free_base, len: base - free_base });
        self.insert(SlotRange { base: end, len: free_end - end });
        true
    }

    /// Takes back a run that no program has seen: it can be given out at once.
    pub(crate) fn put_back(&mut self, range: SlotRange) {
        let SlotRange { mut base, mut len } = range;
        if len == 0 {
            return;
        }
        if let Some((&before, &before_len)) = self.by_base.range(..base).next_back()
            && before + before_len == base
        {
            self.remove(SlotRange { base: before, len: before_len });
            base = before;
            len += before_len;
        }
        if let Some(&after_len) = self.by_base.get(&(base + len)) {
            self.remove(SlotRange { base: base + len, len: after_len });
            len += after_len;
        }
        self.insert(SlotRange { base, len });
    }

    /// Takes back a run that programs may still read: it rests until [`Self::release`].
    pub(crate) fn rest(&mut self, range: SlotRange) {
        if range.len > 0 {
            self.resting.push(range);
        }
    }

    /// A grace period has passed since the last [`Self::rest`].
    pub(crate) fn release(&mut self) {
        for range in std::mem::take(&mut self.resting) {
            self.put_back(range);
        }
    }

    /// How many slots are free, in runs of any length.
    pub(crate) fn available(&self) -> u32 {
        self.free
    }

    /// How many slots wait for a grace period.
    pub(crate) fn resting(&self) -> u32 {
        self.resting.iter().map(|range| range.len).sum()
    }

    fn insert(&mut self, SlotRange { base, len }: SlotRange) {
        if len > 0 {
            self.by_base.insert(base, len);
            self.by_len.insert((len, base));
            self.free += len;
        }
    }

    fn remove(&mut self, SlotRange { base, len }: SlotRange) {
        self.by_base.remove(&base);
        self.by_len.remove(&(len, base));
        self.free -= len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(base: u32, len: u32) -> SlotRange {
        SlotRange { base, len }
    }

    #[test]
    fn the_smallest_run_that_fits_is_taken() {
        let mut ranges = Ranges::new(100);
        assert!(ranges.reserve(range(10, 10)) && ranges.reserve(range(25, 70)));
        assert_eq!(ranges.take(5), Some(range(20, 5)));
        assert_eq!(ranges.take(5), Some(range(95, 5)));
        assert_eq!(ranges.take(10), Some(range(0, 10)));
        assert_eq!(ranges.take(1), None);
    }

    #[test]
    fn neighbours_join_again() {
        let mut ranges = Ranges::new(30);
        let parts = [ranges.take(10).unwrap(), ranges.take(10).unwrap(), ranges.take(10).unwrap()];
        for index in [0, 2, 1] {
            ranges.rest(parts[index]);
        }
        assert_eq!(ranges.take(30), None);
        ranges.release();
        assert_eq!(ranges.take(30), Some(range(0, 30)));
    }

    #[test]
    fn what_is_taken_cannot_be_reserved() {
        let mut ranges = Ranges::new(10);
        assert!(ranges.reserve(range(2, 3)));
        assert!(!ranges.reserve(range(4, 1)));
        assert!(!ranges.reserve(range(9, 2)));
        assert!(!ranges.reserve(range(u32::MAX, 2)));
        assert_eq!(ranges.take(5), Some(range(5, 5)));
        assert_eq!(ranges.take(2), Some(range(0, 2)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u32),
        Rest(prop::sample::Index),
        PutBack(prop::sample::Index),
        Release,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..20_u32).prop_map(Step::Take),
            3 => any::<prop::sample::Index>().prop_map(Step::Rest),
            1 => any::<prop::sample::Index>().prop_map(Step::PutBack),
            1 => Just(Step::Release),
        ]
    }

    proptest! {
        /// `owner` is what each slot belongs to; a slot that rests belongs to the readers that may still be in it.
        #[test]
        fn no_overlap_no_leak_no_reader_in_freed_space(steps in prop::collection::vec(step(), 0..200)) {
            const CAPACITY: u32 = 100;
            let mut ranges = Ranges::new(CAPACITY);
            let mut owner = vec![0_u8; CAPACITY as usize];
            let mut held: Vec<SlotRange> = Vec::new();
            let slots = |range: SlotRange| range.base as usize..(range.base + range.len) as usize;
            for step in steps {
                match step {
                    Step::Take(len) => if let Some(range) = ranges.take(len) {
                        prop_assert_eq!(range.len, len);
                        prop_assert!(owner[slots(range)].iter().all(|owner| *owner == 0));
                        owner[slots(range)].fill(1);
                        held.push(range);
                    } else {
                        let longest = owner.split(|owner| *owner != 0).map(<[u8]>::len).max().unwrap_or(0);
                        prop_assert!(longest < len as usize, "a run of {longest} is free, {len} was refused");
                    },
                    Step::Rest(index) => if !held.is_empty() {
                        let range = held.swap_remove(index.index(held.len()));
                        owner[slots(range)].fill(2);
                        ranges.rest(range);
                    },
                    Step::PutBack(index) => if !held.is_empty() {
                        let range = held.swap_remove(index.index(held.len()));
                        owner[slots(range)].fill(0);
                        ranges.put_back(range);
                    },
                    Step::Release => {
                        owner.iter_mut().filter(|owner| **owner == 2).for_each(|owner| *owner = 0);
                        ranges.release();
                    }
                }
            }
            held.drain(..).for_each(|range| ranges.rest(range));
            ranges.release();
            prop_assert_eq!(ranges.take(CAPACITY), Some(range(0, CAPACITY)));
        }
    }
}
