//! What the subcommands that show something have in common.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde::Serialize;

use crate::datapath;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
}

/// Arguments of every subcommand that reads the pinned maps.
#[derive(clap::Args, Debug)]
pub(super) struct PinArgs {
    /// Directory with the pinned maps and links.
    #[arg(long, value_name = "DIR", default_value = datapath::DEFAULT_BPFFS)]
    pub(super) bpffs: PathBuf,
}

/// Arguments of every subcommand that shows what is pinned.
#[derive(clap::Args, Debug)]
pub(super) struct ViewArgs {
    #[command(flatten)]
    pub(super) pins: PinArgs,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: Format,
}

/// Prints `value` as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints rows under a header, each column as wide as its widest cell.
pub(super) fn print_table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write_table(&mut out, header, rows)?;
    Ok(out.flush()?)
}

fn write_table(out: &mut impl Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| all().map(|row| row.get(column).map_or(0, String::len)).max().unwrap_or(0))
        .collect();
    for row in all() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut out = Vec::new();
        let rows = [vec!["default/echo".into(), "80".into()], vec!["a/b".into(), String::new()]];
        write_table(&mut out, &["SERVICE", "PORT"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "SERVICE       PORT\ndefault/echo  80\na/b\n");
    }
}
