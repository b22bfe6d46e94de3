//! What `cargo xtask` says about its own work: one line before a step, one after it with the time it took.

use std::fmt::Display;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Runs one step between two lines: what begins, then the step's own summary and its time.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    say(format_args!("{what} ..."));
    let start = Instant::now();
    let (value, summary) = work().with_context(|| format!("{what}: failed"))?;
    say(format_args!("{what}: {summary} ({:.1} s)", start.elapsed().as_secs_f64()));
    Ok(value)
}

/// One line of progress. Goes to stderr like cargo's own, so that results can be piped.
pub fn say(line: impl Display) {
    eprintln!("[xtask] {line}");
}

/// Runs a child whose output the reader wants to see as it comes (cargo).
pub fn stream(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("starting `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}); its output is above");
    }
    Ok(())
}

/// Runs a child whose output matters only when it fails (apt-get).
pub fn capture(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}):\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}

/// The command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_child_is_named_with_its_output() {
        let error = capture(Command::new("sh").args(["-c", "echo seen; echo why >&2; exit 3"])).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("seen") && text.contains("why") && text.contains('3'), "{text}");
    }

    #[test]
    fn a_failed_step_says_which() {
        let error = step::<()>("eBPF programs", || bail!("no linker")).unwrap_err();
        assert_eq!(format!("{error:#}"), "eBPF programs: failed: no linker");
    }
}
