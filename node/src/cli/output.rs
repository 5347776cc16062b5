//! How answers are shown: a table for people, JSON or YAML for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::CliError;

/// What `-o` takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns, for people
    #[default]
    Table,
    /// More columns, where there are more
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Prints rows as a table, or the whole answer as a document.
pub fn print<T: Serialize>(
    format: OutputFormat,
    answer: &T,
    columns: &[&str],
    rows: impl FnOnce(&T) -> Vec<Vec<String>>,
) -> Result<(), CliError> {
    match format {
        OutputFormat::Table | OutputFormat::Wide => print_table(columns, rows(answer)),
        OutputFormat::Json | OutputFormat::Yaml => print_document(format, answer),
    }
}

/// Prints a document. A table has no meaning here: JSON stands in.
pub fn print_document<T: Serialize>(format: OutputFormat, answer: &T) -> Result<(), CliError> {
    let text = match format {
        OutputFormat::Yaml => serde_saphyr::to_string(answer).map_err(|error| error.to_string()),
        OutputFormat::Json | OutputFormat::Table | OutputFormat::Wide => {
            serde_json::to_string_pretty(answer).map_err(|error| error.to_string())
        }
    };
    let text = text.map_err(|reason| CliError::Local(format!("the answer cannot be written: {reason}")))?;
    print_line(text.trim_end())
}

/// Prints columns without lines, as `kubectl` users expect.
pub fn print_table(columns: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
    print_line(&table_lines(columns, rows).join("\n"))
}

/// The lines of such a table.
pub fn table_lines(columns: &[&str], rows: Vec<Vec<String>>) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    table.add_rows(rows);
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect()
}

/// Prints a line to stdout. A reader that has gone (`| head`) is no error.
pub fn print_line(line: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CliError::Local(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}
