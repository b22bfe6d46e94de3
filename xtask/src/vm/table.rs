//! The results at the end.

use super::kernel::Kernel;
use super::outcome::Outcome;

/// One line a kernel, under a heading.
pub(super) fn render<'a>(results: impl IntoIterator<Item = (&'a Kernel, &'a Outcome)>) -> String {
    let mut text = format!(
        "{:<8} {:<32} {:>7} {:>7} {:>8} {:>8}  {}\n",
        "kernel", "release", "passed", "failed", "booted", "ended", "result"
    );
    for (kernel, outcome) in results {
        let seconds = |time: Option<std::time::Duration>| {
            time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
        };
        text += &format!(
            "{:<8} {:<32} {:>7} {:>7} {:>8} {:>8}  {outcome}\n",
            kernel.series,
            kernel.release,
            outcome.tests.passed,
            outcome.tests.failed,
            seconds(outcome.booted),
            seconds(Some(outcome.ended)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::vm::outcome::{End, Tests};

    #[test]
    fn columns() {
        let kernel = |series: &str, release: &str| Kernel {
            series: series.to_owned(),
            release: release.to_owned(),
            tree: PathBuf::new(),
        };
        let good = Outcome {
            end: End::Done { failed: 0 },
            tests: Tests { passed: 31, failed: 0 },
            booted: Some(Duration::from_millis(4250)),
            ended: Duration::from_millis(61_500),
        };
        let bad = Outcome {
            end: End::TimedOut,
            tests: Tests::default(),
            booted: None,
            ended: Duration::from_secs(1200),
        };
        let (old, new) =
            (kernel("5.10", "5.10.0-46-cloud-amd64"), kernel("6.12", "6.12.117+deb12-cloud-amd64"));
        assert_eq!(
            render([(&old, &good), (&new, &bad)]),
            "kernel   release                           passed  failed   booted    ended  result\n\
             5.10     5.10.0-46-cloud-amd64                 31       0    4.2 s   61.5 s  passed\n\
             6.12     6.12.117+deb12-cloud-amd64             0       0        - 1200.0 s  timed out\n"
        );
    }
}
