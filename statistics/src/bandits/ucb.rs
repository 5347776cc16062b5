//! Upper confidence bounds: play the arm that could still be the best.
//!
//! - UCB1: Auer, Cesa-Bianchi, Fischer 2002.
//! - Discounted and sliding-window UCB: Garivier, Moulines 2008 (arXiv:0805.3415).
//!
//! All three choose one arm, so on their own their decisions say nothing about the
//! others: publish them with a floor.

use super::epsilon::first_highest;

/// What one arm has earned, discounted or within a window where the world changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Earned {
    /// How many rewards.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
}

impl Earned {
    /// The mean reward; infinite for an arm that was never played.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count > 0.0 { self.sum / self.count } else { f64::INFINITY }
    }
}

/// UCB1: `mean + alpha · √(2 ln N / n)`, N being the pulls of all arms. `alpha` 1 is
/// the paper's, for rewards in 0 to 1. Infinite for an arm that was never played.
#[must_use]
pub fn ucb1(arms: &[Earned], alpha: f64) -> Vec<f64> {
    let all: f64 = arms.iter().map(|arm| arm.count).sum();
    indexes(arms, |count| alpha * (2.0 * logarithm(all) / count).sqrt())
}

/// D-UCB: `mean + 2 B √(ξ ln N / n)` of discounted counts, B being the largest
/// reward. The paper's ξ is 0.6 in its experiments, and must be above 1/2.
#[must_use]
pub fn discounted_ucb(arms: &[Earned], reward_max: f64, xi: f64) -> Vec<f64> {
    let all: f64 = arms.iter().map(|arm| arm.count).sum();
    indexes(arms, |count| 2.0 * reward_max * (xi * logarithm(all) / count).sqrt())
}

/// SW-UCB: `mean + B √(ξ ln min(t, window) / n)` of what lies within the last
/// `window` pulls, `pulls` being all there ever were.
#[must_use]
pub fn sliding_window_ucb(within: &[Earned], pulls: f64, window: f64, reward_max: f64, xi: f64) -> Vec<f64> {
    let horizon = pulls.min(window);
    indexes(within, |count| reward_max * (xi * logarithm(horizon) / count).sqrt())
}

/// All to the arm with the highest index, ties to the first; evenly among arms
/// that were never played while there are any, since a batch can try them all.
#[must_use]
pub fn highest_takes_all(indexes: &[f64]) -> Vec<f64> {
    let unplayed = indexes.iter().filter(|index| index.is_infinite()).count();
    if unplayed > 0 {
        let even = 1.0 / unplayed as f64;
        return indexes.iter().map(|index| if index.is_infinite() { even } else { 0.0 }).collect();
    }
    let best = first_highest(indexes);
    (0..indexes.len()).map(|arm| if Some(arm) == best { 1.0 } else { 0.0 }).collect()
}

fn indexes(arms: &[Earned], padding: impl Fn(f64) -> f64) -> Vec<f64> {
    let index = |arm: &Earned| if arm.count > 0.0 { arm.mean() + padding(arm.count) } else { f64::INFINITY };
    arms.iter().map(index).collect()
}

/// Discounting may leave less than one pull, whose logarithm would be negative.
fn logarithm(pulls: f64) -> f64 {
    pulls.max(1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARMS: [Earned; 3] =
        [Earned { count: 10.0, sum: 5.0 }, Earned { count: 5.0, sum: 3.0 }, Earned { count: 1.0, sum: 0.0 }];

    #[test]
    fn less_played_arms_get_more_benefit_of_the_doubt() {
        let index = ucb1(&ARMS, 1.0);
        assert!((index[2] - (2.0 * 16f64.ln()).sqrt()).abs() < 1e-15);
        assert_eq!(highest_takes_all(&index), [0.0, 0.0, 1.0]);
        assert_eq!(highest_takes_all(&ucb1(&ARMS, 0.0)), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn discounted_ucb_pads_twice_the_sliding_windows() {
        let discounted = discounted_ucb(&ARMS, 1.0, 0.6);
        let windowed = sliding_window_ucb(&ARMS, 1e6, 16.0, 1.0, 0.6);
        for ((arm, one), other) in ARMS.iter().zip(discounted).zip(windowed) {
            assert!((one - arm.mean() - 2.0 * (other - arm.mean())).abs() < 1e-12);
        }
    }

    #[test]
    fn arms_that_were_never_played_share_the_next_batch() {
        let fresh = Earned { count: 0.0, sum: 0.0 };
        assert_eq!(highest_takes_all(&ucb1(&[ARMS[0], fresh, fresh], 1.0)), [0.0, 0.5, 0.5]);
        assert_eq!(highest_takes_all(&[0.3, 0.3]), [1.0, 0.0]);
    }

    #[test]
    fn pulls_discounted_to_less_than_one_pad_nothing() {
        let faint = [Earned { count: 0.25, sum: 0.125 }, Earned { count: 0.25, sum: 0.0 }];
        assert_eq!(ucb1(&faint, 1.0), [0.5, 0.0]);
    }
}
