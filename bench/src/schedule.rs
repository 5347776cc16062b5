//! When an open loop means to send. Pure: a schedule never looks at a clock, so a
//! server that stalls cannot slow it down.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::load::Spacing;

/// Endless intended times, as offsets from the start of the load.
pub(crate) struct Schedule {
    /// Seconds; a sum of gaps stays exact to nanoseconds for days.
    next: f64,
    mean_gap: f64,
    spacing: Spacing,
    random: StdRng,
}

impl Schedule {
    /// The share of one thread among several: together they make `rate` per second.
    pub(crate) fn of_thread(rate: f64, spacing: Spacing, thread: usize, threads: usize) -> Self {
        let mean_gap = threads as f64 / rate;
        let mut random = StdRng::seed_from_u64(thread as u64);
        let next = match spacing {
            // Threads take turns.
            Spacing::Constant => thread as f64 / rate,
            Spacing::Poisson => exponential(&mut random, mean_gap),
        };
        Self { next, mean_gap, spacing, random }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let intended = self.next;
        self.next += match self.spacing {
            Spacing::Constant => self.mean_gap,
            Spacing::Poisson => exponential(&mut self.random, self.mean_gap),
        };
        Duration::try_from_secs_f64(intended).ok()
    }
}

fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    // In (0, 1], so that the logarithm is finite.
    let uniform = 1.0 - random.random::<f64>();
    -uniform.ln() * mean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_gaps_of_two_threads_interleave() {
        let millis = |thread| -> Vec<u128> {
            let schedule = Schedule::of_thread(1_000.0, Spacing::Constant, thread, 2);
            schedule.take(3).map(|at| at.as_micros()).collect()
        };
        assert_eq!(millis(0), [0, 2_000, 4_000]);
        assert_eq!(millis(1), [1_000, 3_000, 5_000]);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_vary() {
        let schedule = Schedule::of_thread(2_000.0, Spacing::Poisson, 0, 2);
        let times: Vec<Duration> = schedule.take_while(|at| *at < Duration::from_secs(100)).collect();
        // 100,000 expected, with a standard deviation of 316.
        assert!((98_500..=101_500).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs_f64()).collect();
        let above_mean = gaps.iter().filter(|gap| **gap > 0.001).count() as f64 / gaps.len() as f64;
        // Of exponential gaps 1/e are above the mean.
        assert!((above_mean - 0.368).abs() < 0.01, "{above_mean}");
    }
}
