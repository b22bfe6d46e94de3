//! The results at the end.

use std::collections::BTreeSet;

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

/// Which modules' tests have passed on which kernel, `passed/all`, and the names of those that have not.
pub(super) fn render_tests<'a>(results: impl IntoIterator<Item = (&'a Kernel, &'a Outcome)>) -> String {
    let results: Vec<_> = results.into_iter().collect();
    let module = |test: &str| test.rsplit_once("::").map_or("-", |(module, _)| module).to_owned();
    let modules: BTreeSet<String> =
        results.iter().flat_map(|(_, outcome)| outcome.tests.named.keys()).map(|test| module(test)).collect();
    let mut text = format!("{:<28}", "tests");
    text.extend(results.iter().map(|(kernel, _)| format!(" {:>8}", kernel.series)));
    text += "\n";
    for wanted in modules {
        text += &format!("{wanted:<28}");
        text.extend(results.iter().map(|(_, outcome)| {
            let of_module = outcome.tests.named.iter().filter(|(test, _)| module(test) == wanted);
            let (all, passed) = (of_module.clone().count(), of_module.filter(|(_, passed)| **passed).count());
            format!(" {:>8}", format!("{passed}/{all}"))
        }));
        text += "\n";
    }
    for (kernel, outcome) in results {
        let failed = outcome.tests.named.iter().filter(|(_, passed)| !**passed);
        text.extend(failed.map(|(test, _)| format!("failed on {}: {test}\n", kernel.release)));
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
            tests: Tests {
                passed: 31,
                failed: 0,
                named: [("a::b::c".to_owned(), true), ("d".to_owned(), true)].into(),
            },
            booted: Some(Duration::from_millis(4250)),
            ended: Duration::from_millis(61_500),
        };
        let bad = Outcome {
            end: End::TimedOut,
            tests: Tests { named: [("a::b::c".to_owned(), false)].into(), ..Tests::default() },
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
        assert_eq!(
            render_tests([(&old, &good), (&new, &bad)]),
            "tests                            5.10     6.12\n\
             -                                 1/1      0/0\n\
             a::b                              1/1      0/1\n\
             failed on 6.12.117+deb12-cloud-amd64: a::b::c\n"
        );
    }
}
