//! What a terminal shows while a measurement runs: one line on stderr.

use std::collections::VecDeque;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use starling_bench::generator::Progress;
use starling_bench::load::{Ending, LoadSpec};

use super::report::LoadName;
use crate::cli::get::micros;

/// The line. Hidden where stderr is no terminal; gone when dropped.
pub(super) struct LiveView {
    bar: ProgressBar,
    warm_up: Duration,
    ending: Ending,
    rate: RateOfLately,
}

impl LiveView {
    pub(super) fn new(load: &LoadSpec) -> Self {
        let length = match load.ending {
            Ending::After(duration) => as_millis(load.warm_up + duration),
            Ending::Answers(answers) => answers,
        };
        let bar = ProgressBar::new(length).with_prefix(LoadName::of(load).to_string());
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:20}] {msg}") {
            bar.set_style(style);
        }
        Self { bar, warm_up: load.warm_up, ending: load.ending, rate: RateOfLately::default() }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let rate = self.rate.after(progress.elapsed, progress.answered);
        self.bar.set_position(match self.ending {
            Ending::After(_) => as_millis(progress.elapsed),
            Ending::Answers(_) => progress.answered,
        });
        self.bar.set_message(line(progress, rate, self.warm_up));
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(progress: &Progress, rate: f64, warm_up: Duration) -> String {
    let mut line = format!("{rate:.0}/s, {} in flight", progress.in_flight);
    if let (Some(p50), Some(p99)) = (progress.p50_us, progress.p99_us) {
        line.push_str(&format!(", p50 {}, p99 {}", micros(p50), micros(p99)));
    }
    if progress.failed > 0 {
        line.push_str(&format!(", {} failed", progress.failed));
    }
    if progress.warming_up {
        let left = warm_up.saturating_sub(progress.elapsed);
        line.push_str(&format!(", warming up for {:.1} s", left.as_secs_f64()));
    }
    line
}

/// The rate of the last second or so.
#[derive(Default)]
struct RateOfLately {
    readings: VecDeque<(Duration, u64)>,
}

const LATELY: Duration = Duration::from_secs(1);

impl RateOfLately {
    fn after(&mut self, elapsed: Duration, answered: u64) -> f64 {
        self.readings.push_back((elapsed, answered));
        // One from before is kept, to have a span.
        while self.readings.get(1).is_some_and(|(at, _)| elapsed.saturating_sub(*at) > LATELY) {
            self.readings.pop_front();
        }
        let (since, before) = self.readings.front().copied().unwrap_or_default();
        let seconds = elapsed.saturating_sub(since).as_secs_f64();
        if seconds > 0.0 { (answered - before) as f64 / seconds } else { 0.0 }
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut rate = RateOfLately::default();
        let at = |tenths: u64| Duration::from_millis(100 * tenths);
        assert_eq!(rate.after(at(0), 0), 0.0);
        assert_eq!(rate.after(at(10), 100), 100.0);
        // 100 per second before, 1,000 since.
        let later: Vec<f64> =
            (11..=25).map(|tenths| rate.after(at(tenths), 100 + 100 * (tenths - 10))).collect();
        assert!((later[14] - 1_000.0).abs() < 1.0, "{later:?}");
    }

    #[test]
    fn a_line_says_what_is_known() {
        let mut progress = Progress {
            elapsed: Duration::from_millis(400),
            warming_up: true,
            answered: 40,
            failed: 0,
            in_flight: 16,
            p50_us: None,
            p99_us: None,
        };
        let warm_up = Duration::from_secs(1);
        assert_eq!(line(&progress, 100.4, warm_up), "100/s, 16 in flight, warming up for 0.6 s");
        progress =
            Progress { warming_up: false, failed: 3, p50_us: Some(250.0), p99_us: Some(1_500.0), ..progress };
        assert_eq!(line(&progress, 100.4, warm_up), "100/s, 16 in flight, p50 250 µs, p99 1.50 ms, 3 failed");
    }
}
