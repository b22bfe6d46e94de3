//! What came of the tests on one kernel, read from what the guest printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::guest::DONE;

/// What came of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) tests: Tests,
    /// From the start of QEMU to the first line of our init.
    pub(super) booted: Option<Duration>,
    /// From the start of QEMU to its end.
    pub(super) ended: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every test program ended; so many of them failed.
    Done { failed: u32 },
    /// The guest stopped before it had run all tests: a panic of the kernel, or of our init.
    Died,
    /// QEMU was ended because it took too long.
    TimedOut,
}

/// Tests by their result, over all test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tests {
    pub(super) passed: u32,
    pub(super) failed: u32,
    /// Whether each one has passed, by its name.
    pub(super) named: BTreeMap<String, bool>,
}

impl Outcome {
    /// Whether there were tests, and all passed.
    pub(super) fn passed(&self) -> bool {
        self.end == End::Done { failed: 0 } && self.tests.passed > 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            End::Done { failed: 0 } if self.tests.passed == 0 => write!(formatter, "ran no test"),
            End::Done { failed: 0 } => write!(formatter, "passed"),
            End::Done { failed: 1 } => write!(formatter, "1 test program failed"),
            End::Done { failed } => write!(formatter, "{failed} test programs failed"),
            End::Died => write!(formatter, "the guest died"),
            End::TimedOut => write!(formatter, "timed out"),
        }
    }
}

/// The number of failed test programs, in the guest's last line.
pub(super) fn done(line: &str) -> Option<u32> {
    line.strip_prefix(DONE)?.parse().ok()
}

impl Tests {
    /// Adds what a test program says of one test, such as `test packet::matrix::tcx ... ok`, or in its closing line, such
    /// as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(super) fn add(&mut self, line: &str) {
        let named = line.strip_prefix("test ").and_then(|text| text.split_once(" ... "));
        match named {
            Some((name, "ok")) => drop(self.named.insert(name.to_owned(), true)),
            Some((name, "FAILED")) => drop(self.named.insert(name.to_owned(), false)),
            _ => {}
        }
        let Some((_verdict, counts)) =
            line.strip_prefix("test result: ").and_then(|text| text.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ').and_then(|(number, what)| Some((number.parse::<u32>().ok()?, what))) {
                Some((number, "passed")) => self.passed += number,
                Some((number, "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(end: End, passed: u32) -> Outcome {
        let tests = Tests { passed, ..Tests::default() };
        Outcome { end, tests, booted: None, ended: Duration::ZERO }
    }

    #[test]
    fn the_last_line() {
        assert_eq!(done("DONE failed=0"), Some(0));
        assert_eq!(done("DONE failed=12"), Some(12));
        assert_eq!(done("DONE failed="), None);
        assert_eq!(done("said DONE failed=0"), None);
    }

    #[test]
    fn closing_lines_add_up() {
        let mut tests = Tests::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test connect ... ok",
            "test a::b ... FAILED",
            "test c ... ignored",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1s",
        ] {
            tests.add(line);
        }
        assert_eq!((tests.passed, tests.failed), (7, 2));
        assert_eq!(tests.named, [("connect".to_owned(), true), ("a::b".to_owned(), false)].into());
    }

    #[test]
    fn no_test_is_no_success() {
        assert!(outcome(End::Done { failed: 0 }, 1).passed());
        for bad in [
            outcome(End::Done { failed: 0 }, 0),
            outcome(End::Done { failed: 1 }, 1),
            outcome(End::Died, 1),
            outcome(End::TimedOut, 1),
        ] {
            assert!(!bad.passed(), "{bad}");
        }
    }
}
