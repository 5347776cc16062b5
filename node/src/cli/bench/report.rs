//! What was measured, as a table with remarks, or as one document.

use std::fmt;

use serde::Serialize;
use starling_bench::load::{Arrivals, LoadSpec, Spacing};
use starling_bench::outcome::Outcome;
use starling_bench::server::ServedModel;

use crate::cli::CliError;
use crate::cli::get::micros;
use crate::cli::output::{self, OutputFormat};

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) server: String,
    pub(super) protocol: &'static str,
    rows_per_request: u64,
    request_bytes: usize,
    pub(super) measurements: Vec<Measured>,
}

/// One load and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) load: LoadName,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// A load, as reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum LoadName {
    Closed { clients: usize },
    Open { rate: f64, spacing: &'static str },
}

impl LoadName {
    pub(super) fn of(load: &LoadSpec) -> Self {
        match load.arrivals {
            Arrivals::Closed { clients } => Self::Closed { clients },
            Arrivals::Open { rate, spacing: Spacing::Poisson, .. } => Self::Open { rate, spacing: "poisson" },
            Arrivals::Open { rate, spacing: Spacing::Constant, .. } => {
                Self::Open { rate, spacing: "constant" }
            }
        }
    }
}

impl fmt::Display for LoadName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { clients: 1 } => formatter.write_str("1 client"),
            Self::Closed { clients } => write!(formatter, "{clients} clients"),
            Self::Open { rate, .. } => write!(formatter, "{rate}/s"),
        }
    }
}

impl Measured {
    pub(super) fn new(load: &LoadSpec, outcome: Outcome) -> Self {
        Self { load: LoadName::of(load), outcome }
    }
}

impl Report {
    pub(super) fn new(served: &ServedModel, rows_per_request: u64, request_bytes: usize) -> Self {
        Self {
            model: served.model.clone(),
            server: served.server.clone(),
            protocol: served.protocol.name(),
            rows_per_request,
            request_bytes,
            measurements: Vec::new(),
        }
    }

    /// Why, if no load got a single answer.
    pub(super) fn nothing_answered(&self) -> Option<String> {
        if self.measurements.iter().any(|measured| measured.outcome.answered > 0) {
            return None;
        }
        let errors = self.measurements.iter().flat_map(|measured| &measured.outcome.errors);
        let first = errors.map(|(code, failures)| format!(": {code}: {}", failures.example)).next();
        Some(format!("nothing was answered{}", first.unwrap_or_default()))
    }
}

const COLUMNS: &[&str] = &["load", "requests/s", "p50", "p90", "p99", "p99.9", "max", "failed"];
const SERVER_COLUMNS: &[&str] = &["in server", "queue", "input", "infer", "output", "batch"];
const ROWS_COLUMN: &str = "rows/s";

/// Columns for people with what is remarkable below them, or a document.
pub(super) fn print(format: OutputFormat, report: &Report) -> Result<(), CliError> {
    if format != OutputFormat::Table {
        return output::print_document(format, report);
    }
    let with_server = report.measurements.iter().any(|measured| measured.outcome.server.is_some());
    let with_rows = report.rows_per_request > 1;
    let mut columns = COLUMNS.to_vec();
    if with_rows {
        columns.push(ROWS_COLUMN);
    }
    if with_server {
        columns.extend(SERVER_COLUMNS);
    }
    let rows = report.measurements.iter().map(|measured| {
        let mut row = cells(measured);
        if with_rows {
            row.push(format!("{:.0}", measured.outcome.requests_per_second * report.rows_per_request as f64));
        }
        if with_server {
            row.extend(server_cells(&measured.outcome));
        }
        row
    });
    output::print_table(&columns, rows.collect())?;
    report.measurements.iter().flat_map(remarks).try_for_each(|remark| output::print_line(&remark))
}

fn cells(measured: &Measured) -> Vec<String> {
    let outcome = &measured.outcome;
    let mut cells = vec![measured.load.to_string(), format!("{:.0}", outcome.requests_per_second)];
    cells.extend(match outcome.latency {
        None => vec!["-".to_owned(); 5],
        Some(latency) => [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us]
            .map(micros)
            .to_vec(),
    });
    cells.push(outcome.failed.to_string());
    cells
}

fn server_cells(outcome: &Outcome) -> Vec<String> {
    let Some(server) = outcome.server else { return vec!["-".to_owned(); SERVER_COLUMNS.len()] };
    let times = [server.request_us, server.queue_us, server.input_us, server.infer_us, server.output_us];
    let mut cells: Vec<String> = times.map(micros).to_vec();
    cells.push(format!("{:.1}", server.batch_mean));
    cells
}

/// What a reader of the table must know besides.
fn remarks(measured: &Measured) -> Vec<String> {
    let (load, outcome) = (&measured.load, &measured.outcome);
    let mut remarks = Vec::new();
    for (code, failures) in &outcome.errors {
        let example = failures.example.lines().next().unwrap_or_default();
        remarks.push(format!("{load}: {} failed with {code}: {example}", failures.count));
    }
    if outcome.not_sent > 0 {
        remarks.push(format!(
            "{load}: {} requests had no place in flight until the end; their latency is not in the table",
            outcome.not_sent
        ));
    }
    // Some lateness is in every machine; this much says that the load was not what was asked for.
    let sent = outcome.answered + outcome.failed;
    if outcome.sent_late * 20 > sent {
        remarks.push(format!(
            "{load}: {} of {sent} requests were sent more than 1 ms late, up to {}; \
             more --in-flight or more cores for the generator help, if the server is not what is late",
            outcome.sent_late,
            micros(outcome.lag_max_us)
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_named_as_people_say_them() {
        let names = [
            LoadName::Closed { clients: 1 },
            LoadName::Closed { clients: 16 },
            LoadName::Open { rate: 250.0, spacing: "poisson" },
            LoadName::Open { rate: 0.5, spacing: "poisson" },
        ];
        assert_eq!(names.map(|name| name.to_string()), ["1 client", "16 clients", "250/s", "0.5/s"]);
    }
}
