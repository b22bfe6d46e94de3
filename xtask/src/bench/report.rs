//! The figures, as a table and as JSON.

use serde::Serialize;

/// All figures of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    rows: Vec<Row>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Services in the cluster.
    pub services: usize,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What the figure was compared with, in the same unit.
    pub baseline: Option<f64>,
    /// What the design asks for, in the unit of `value`; an upper bound.
    pub goal: Option<f64>,
}

impl Report {
    /// Adds a figure and prints it.
    pub(super) fn add(&mut self, row: Row) {
        if self.rows.is_empty() {
            println!("{:<58} {:>9} {:>12} {:>12} {:>12}", "what", "Services", "figure", "baseline", "goal");
        }
        let shown = |value: Option<f64>| value.map_or_else(String::new, |value| format(value, row.unit));
        let met = row.goal.map_or("", |goal| if row.value <= goal { "" } else { "  missed" });
        println!(
            "{:<58} {:>9} {:>12} {:>12} {:>12}{met}",
            row.what,
            row.services,
            format(row.value, row.unit),
            shown(row.baseline),
            shown(row.goal),
        );
        self.rows.push(row);
    }
}

fn format(value: f64, unit: &str) -> String {
    let digits = if value.abs() < 10.0 && unit != "instructions" && unit != "ns" { 2 } else { 0 };
    format!("{value:.digits$} {unit}")
}

/// The value below which a tenth of the samples lie: what the code costs when nothing disturbs it.
pub(super) fn tenth(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.1)
}

/// The middle sample.
pub(super) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a short list"
)]
fn quantile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let index = (samples.len().saturating_sub(1) as f64 * part).round() as usize;
    samples.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_list() {
        let mut samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(median(&mut samples), 50.0);
        assert_eq!(tenth(&mut samples), 10.0);
        assert!(median(&mut []).is_nan());
    }
}
