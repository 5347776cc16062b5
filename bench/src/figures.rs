//! The comparison as data: what each contestant reached in each round, what is
//! asked of the ratios, and whether it was reached. Pure.

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

mod table;

pub use table::{markdown, text};

/// Everything that one run of the comparison found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Where and how it was measured.
    pub machine: Machine,
    /// Rounds in which the contestants took turns.
    pub rounds: usize,
    /// Measured seconds per contestant and round.
    pub seconds: f64,
    /// What is asked, beside what came.
    pub rows: Vec<Row>,
    /// What it was computed from.
    pub measurements: Vec<Measurement>,
    /// Scenarios that could not be measured, and why.
    pub failures: Vec<Unmeasured>,
}

/// A scenario that broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmeasured {
    /// Its name.
    pub scenario: String,
    /// The error.
    pub reason: String,
}

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the system names it.
    pub processor: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Of all memory.
    pub memory_gib: f64,
    /// Name and release.
    pub kernel: String,
    /// How busy it was before anything was started: the load average of a minute.
    pub load_before: f64,
}

/// What is asked of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
    /// Nothing; shown because it explains others.
    Nothing,
}

/// One figure of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which scenario measured it.
    pub scenario: String,
    /// What it is, with its unit.
    pub figure: String,
    /// What is asked.
    pub asked: Asked,
    /// Median of the rounds.
    pub measured: f64,
    /// As measured in each round.
    pub rounds: Vec<f64>,
}

impl Row {
    /// From what each round gave.
    pub fn new(scenario: &str, figure: impl Into<String>, asked: Asked, rounds: Vec<f64>) -> Self {
        Self {
            scenario: scenario.to_owned(),
            figure: figure.into(),
            asked,
            measured: median(&rounds),
            rounds,
        }
    }

    /// `None`: nothing was asked. A figure that is no number is not reached.
    pub fn reached(&self) -> Option<bool> {
        match self.asked {
            Asked::AtLeast(bound) => Some(self.measured >= bound),
            Asked::AtMost(bound) => Some(self.measured <= bound),
            Asked::Nothing => None,
        }
    }
}

/// What one contestant did under one load, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Which scenario.
    pub scenario: String,
    /// Who, and under which load.
    pub contestant: String,
    /// One per round.
    pub rounds: Vec<Sample>,
}

/// One contestant in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Successful answers per second; rows per second where no server is asked.
    pub rate: f64,
    /// Median latency in microseconds; 0 where no server is asked.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Requests that failed.
    pub failed: u64,
    /// Processor time per request in microseconds: of the generator,
    pub generator_cpu_us: f64,
    /// and of the server; 0 where it is not known.
    pub server_cpu_us: f64,
}

impl Sample {
    /// Of a server under load; its own processor time is left at 0.
    pub fn of(outcome: &Outcome) -> Self {
        Self {
            rate: outcome.requests_per_second,
            p50_us: outcome.latency.map_or(f64::NAN, |latency| latency.p50_us),
            p99_us: outcome.latency.map_or(f64::NAN, |latency| latency.p99_us),
            failed: outcome.failed,
            generator_cpu_us: outcome.generator_cpu_us,
            server_cpu_us: 0.0,
        }
    }

    /// Where no server is asked.
    pub fn of_rows(rows_per_second: f64) -> Self {
        Self {
            rate: rows_per_second,
            p50_us: 0.0,
            p99_us: 0.0,
            failed: 0,
            generator_cpu_us: 0.0,
            server_cpu_us: 0.0,
        }
    }
}

impl Measurement {
    /// Before the first round.
    pub fn new(scenario: &str, contestant: &str) -> Self {
        Self { scenario: scenario.to_owned(), contestant: contestant.to_owned(), rounds: Vec::new() }
    }

    /// Rates by round.
    pub fn rates(&self) -> Vec<f64> {
        self.rounds.iter().map(|sample| sample.rate).collect()
    }

    /// Median latencies by round.
    pub fn p50s(&self) -> Vec<f64> {
        self.rounds.iter().map(|sample| sample.p50_us).collect()
    }

    /// 99th percentiles by round.
    pub fn p99s(&self) -> Vec<f64> {
        self.rounds.iter().map(|sample| sample.p99_us).collect()
    }
}

/// The middle one; the mean of the middle two of an even count; NaN of none.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Round by round, so that a disturbance that both felt cancels out.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// What the cores could do if nothing but transport and model cost anything:
/// 1/bound = 1/echo + 1/raw, round by round.
pub fn bounds(echo: &[f64], raw: &[f64]) -> Vec<f64> {
    echo.iter().zip(raw).map(|(echo, raw)| 1.0 / (1.0 / echo + 1.0 / raw)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_disturbed_round_moves_both_and_not_their_ratio() {
        assert_eq!(ratios(&[90.0, 45.0, 90.0], &[100.0, 50.0, 100.0]), [0.9, 0.9, 0.9]);
    }

    #[test]
    fn the_bound_of_equal_costs_is_half_of_either() {
        assert!((bounds(&[50_000.0], &[50_000.0])[0] - 25_000.0).abs() < 1e-6);
        assert!((bounds(&[49_400.0], &[61_000.0])[0] - 27_295.0).abs() < 1.0);
    }

    #[test]
    fn a_figure_is_reached_on_its_own_side_of_the_bound() {
        let reached = |asked, rounds: &[f64]| Row::new("s", "f", asked, rounds.to_vec()).reached();
        assert_eq!(reached(Asked::AtLeast(0.9), &[0.8, 0.9, 1.2]), Some(true));
        assert_eq!(reached(Asked::AtLeast(0.9), &[0.8, 0.89, 1.2]), Some(false));
        assert_eq!(reached(Asked::AtMost(0.0), &[0.0]), Some(true));
        assert_eq!(reached(Asked::AtMost(1.3), &[1.31]), Some(false));
        assert_eq!(reached(Asked::AtMost(1.3), &[]), Some(false));
        assert_eq!(reached(Asked::Nothing, &[1.0]), None);
    }
}
