//! The comparison for people: columns on a terminal, tables in Markdown. Pure.

use std::fmt::Write;

use super::{Asked, Figures, Measurement, Row, median};

const ROW_HEADINGS: [&str; 6] = ["scenario", "figure", "asked", "measured", "rounds", "reached"];
const MEASUREMENT_HEADINGS: [&str; 8] = [
    "scenario",
    "contestant",
    "per second",
    "p50 µs",
    "p99 µs",
    "failed",
    "server CPU µs",
    "generator CPU µs",
];

/// Both tables, aligned.
pub fn text(figures: &Figures) -> String {
    let mut text = String::new();
    align(&mut text, &ROW_HEADINGS, figures.rows.iter().map(row_cells));
    text.push('\n');
    align(&mut text, &MEASUREMENT_HEADINGS, figures.measurements.iter().map(measurement_cells));
    text.push('\n');
    for failure in &figures.failures {
        let _ = writeln!(text, "{} could not be measured: {}", failure.scenario, failure.reason);
    }
    let _ = writeln!(text, "{}", conditions(figures));
    text
}

/// Both tables and the machine, as they stand in docs/benchmarks.md.
pub fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", conditions(figures));
    pipes(&mut text, &ROW_HEADINGS, figures.rows.iter().map(row_cells));
    text.push('\n');
    pipes(&mut text, &MEASUREMENT_HEADINGS, figures.measurements.iter().map(measurement_cells));
    for failure in &figures.failures {
        let _ = writeln!(text, "\n`{}` could not be measured: {}", failure.scenario, failure.reason);
    }
    text
}

fn conditions(figures: &Figures) -> String {
    let machine = &figures.machine;
    format!(
        "{}, {} cores, {:.0} GiB, {}; load average before: {:.2}. Medians of {} alternating rounds of {} s.",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        figures.rounds,
        figures.seconds
    )
}

fn row_cells(row: &Row) -> Vec<String> {
    let asked = match row.asked {
        Asked::AtLeast(bound) => format!("≥ {}", number(bound)),
        Asked::AtMost(bound) => format!("≤ {}", number(bound)),
        Asked::Nothing => "-".to_owned(),
    };
    let reached = match row.reached() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    let lowest = row.rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = row.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let spread = match row.rounds.len() {
        0 | 1 => "-".to_owned(),
        _ => format!("{} to {}", number(lowest), number(highest)),
    };
    vec![row.scenario.clone(), row.figure.clone(), asked, number(row.measured), spread, reached.to_owned()]
}

fn measurement_cells(measurement: &Measurement) -> Vec<String> {
    let of = |figure: fn(&super::Sample) -> f64| {
        let median = median(&measurement.rounds.iter().map(figure).collect::<Vec<_>>());
        if median == 0.0 { "-".to_owned() } else { format!("{median:.0}") }
    };
    let one_digit = |figure: fn(&super::Sample) -> f64| {
        let median = median(&measurement.rounds.iter().map(figure).collect::<Vec<_>>());
        if median == 0.0 { "-".to_owned() } else { format!("{median:.1}") }
    };
    vec![
        measurement.scenario.clone(),
        measurement.contestant.clone(),
        of(|sample| sample.rate),
        of(|sample| sample.p50_us),
        of(|sample| sample.p99_us),
        measurement.rounds.iter().map(|sample| sample.failed).sum::<u64>().to_string(),
        one_digit(|sample| sample.server_cpu_us),
        one_digit(|sample| sample.generator_cpu_us),
    ]
}

/// As many digits as say something.
fn number(figure: f64) -> String {
    match figure.abs() {
        magnitude if magnitude >= 100.0 => format!("{figure:.0}"),
        magnitude if magnitude >= 10.0 => format!("{figure:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{figure:.2}"),
    }
}

fn align(text: &mut String, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut lines = vec![headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in lines {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(written, "{cell:width$}  ");
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
}

fn pipes(text: &mut String, headings: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |", headings.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(headings.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Machine, Sample, Unmeasured};

    fn figures() -> Figures {
        let sample = Sample {
            rate: 41_000.4,
            p50_us: 321.0,
            p99_us: 1_755.0,
            failed: 1,
            generator_cpu_us: 9.25,
            server_cpu_us: 0.0,
        };
        Figures {
            machine: Machine {
                processor: "A Processor".into(),
                cores: 2,
                memory_gib: 23.4,
                kernel: "Linux 6.1".into(),
                load_before: 0.07,
            },
            rounds: 3,
            seconds: 3.0,
            rows: vec![
                Row::new("tiny", "rate of echo", Asked::AtLeast(0.9), vec![0.91, 0.95, 0.93]),
                Row::new("memory", "idle MiB", Asked::AtMost(120.0), vec![130.2]),
            ],
            measurements: vec![Measurement {
                scenario: "tiny".into(),
                contestant: "echo, 16 clients".into(),
                rounds: vec![sample, sample],
            }],
            failures: vec![Unmeasured { scenario: "trees".into(), reason: "no file".into() }],
        }
    }

    #[test]
    fn markdown_has_a_line_per_figure_and_the_machine() {
        let markdown = markdown(&figures());
        let expected = "\
A Processor, 2 cores, 23 GiB, Linux 6.1; load average before: 0.07. Medians of 3 alternating rounds of 3 s.

| scenario | figure | asked | measured | rounds | reached |
|---|---|---|---|---|---|
| tiny | rate of echo | ≥ 0.90 | 0.93 | 0.91 to 0.95 | yes |
| memory | idle MiB | ≤ 120 | 130 | - | no |

| scenario | contestant | per second | p50 µs | p99 µs | failed | server CPU µs | generator CPU µs |
|---|---|---|---|---|---|---|---|
| tiny | echo, 16 clients | 41000 | 321 | 1755 | 2 | - | 9.2 |

`trees` could not be measured: no file
";
        assert_eq!(markdown, expected);
    }

    #[test]
    fn columns_are_aligned() {
        let text = text(&figures());
        let lines: Vec<&str> = text.lines().take(3).collect();
        let expected = [
            "scenario  figure        asked   measured  rounds        reached",
            "tiny      rate of echo  ≥ 0.90  0.93      0.91 to 0.95  yes",
            "memory    idle MiB      ≤ 120   130       -             no",
        ];
        assert_eq!(lines, expected);
    }
}
