use std::{collections::HashSet, hash::Hash, sync::Arc};

/// Below this many values a sweep is not worth its time.
const FIRST_SWEEP: usize = 1024;

/// Values that are held once, however many objects refer to them, and let go when none does.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    sweep_at: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), sweep_at: FIRST_SWEEP }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    fn insert(&mut self, value: Arc<T>) -> Arc<T> {
        if self.values.len() >= self.sweep_at {
            // Names come and go in a living cluster. Sweeping at twice the size of what is in use keeps the
            // set in proportion and the price of a sweep spread over as many insertions.
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = FIRST_SWEEP.max(2 * self.values.len());
        }
        self.values.insert(Arc::clone(&value));
        value
    }
}

impl Interner<str> {
    /// The shared copy of `text`.
    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        self.values.get(text).cloned().unwrap_or_else(|| self.insert(text.into()))
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The shared copy of `value`.
    pub(super) fn get_owned(&mut self, value: T) -> Arc<T> {
        self.values.get(&value).cloned().unwrap_or_else(|| self.insert(value.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_is_held_once() {
        let mut strings = Interner::<str>::default();
        assert!(Arc::ptr_eq(&strings.get("http"), &strings.get("http")));
        assert_ne!(strings.get("http"), strings.get("https"));
    }

    #[test]
    fn what_nobody_uses_is_let_go() {
        let mut strings = Interner::<str>::default();
        let kept = strings.get("kept");
        for n in 0..10 * FIRST_SWEEP {
            strings.get(&n.to_string());
        }
        assert!(strings.values.len() <= FIRST_SWEEP);
        assert!(Arc::ptr_eq(&kept, &strings.get("kept")));
    }
}
