//! Least and most that each arm gets: probabilities are scaled until they fit
//! between floor and ceiling (water-filling).
//!
//! A floor keeps every arm observed and bounds the weight of one decision in an
//! off-policy estimate by 1 / floor; a ceiling keeps one arm from taking all.

use super::error::{BanditError, share};

/// Floor and ceiling for each arm that takes part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    floor: f64,
    ceiling: f64,
}

impl Bounds {
    /// Neither floor nor ceiling.
    pub const NONE: Self = Self { floor: 0.0, ceiling: 1.0 };

    /// Both are shares of the whole, in 0 to 1, the floor not above the ceiling.
    pub fn new(floor: f64, ceiling: f64) -> Result<Self, BanditError> {
        share("the floor of an arm", floor)?;
        share("the ceiling of an arm", ceiling)?;
        if floor > ceiling {
            return Err(BanditError::OutOfRange {
                what: "the floor of an arm",
                got: floor,
                expected: "no higher than the ceiling",
            });
        }
        Ok(Self { floor, ceiling })
    }

    /// The least that an arm gets.
    #[must_use]
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// The most that an arm gets.
    #[must_use]
    pub fn ceiling(&self) -> f64 {
        self.ceiling
    }

    /// Whether so many arms can be served within these bounds.
    pub fn fit(&self, arms: usize) -> Result<(), BanditError> {
        if arms == 0 {
            return Err(BanditError::NoArms);
        }
        let even = 1.0 / arms as f64;
        // A floor of exactly 1 / arms was rounded by whoever wrote it.
        if self.floor > even * (1.0 + 4.0 * f64::EPSILON) {
            return Err(BanditError::FloorTooHigh { floor: self.floor, arms, fits: even });
        }
        if self.ceiling < even * (1.0 - 4.0 * f64::EPSILON) {
            return Err(BanditError::CeilingTooLow { ceiling: self.ceiling, arms, fits: even });
        }
        Ok(())
    }

    /// Scales probabilities into the bounds, so that they sum to 1.
    ///
    /// Arms that do not take part (`None`: quarantined) get 0 and count for no
    /// floor. The others keep their proportions as far as the bounds let them:
    /// the answer is `clamp(scale · p)` with the one scale that sums to 1.
    pub fn apply(&self, probabilities: &[Option<f64>]) -> Result<Vec<f64>, BanditError> {
        let part: Vec<usize> =
            (0..probabilities.len()).filter(|position| probabilities[*position].is_some()).collect();
        self.fit(part.len())?;
        let mut weights = Vec::with_capacity(part.len());
        for probability in probabilities.iter().flatten() {
            if !(probability.is_finite() && *probability >= 0.0) {
                return Err(BanditError::OutOfRange {
                    what: "the probability of an arm",
                    got: *probability,
                    expected: "a finite number of 0 or more",
                });
            }
            weights.push(*probability);
        }
        let mut bounded = vec![0.0; probabilities.len()];
        for (position, share) in part.into_iter().zip(self.fill(&weights)) {
            bounded[position] = share;
        }
        Ok(bounded)
    }

    /// Each round scales the free arms to what is left and fixes those that break
    /// the bound which, in sum, is broken more: fixing them cannot be regretted.
    /// Every round but the last fixes an arm, so there are as many rounds as arms.
    fn fill(&self, weights: &[f64]) -> Vec<f64> {
        let mut fixed: Vec<Option<f64>> = vec![None; weights.len()];
        loop {
            let left = 1.0 - fixed.iter().flatten().sum::<f64>();
            let scaled = scaled_to(left, weights, &fixed);
            let (mut under, mut over) = (0.0, 0.0);
            for (share, _) in scaled.iter().zip(&fixed).filter(|(_, fixed)| fixed.is_none()) {
                under += (self.floor - share).max(0.0);
                over += (share - self.ceiling).max(0.0);
            }
            if under == 0.0 && over == 0.0 {
                return scaled;
            }
            for (share, fixed) in scaled.iter().zip(&mut fixed).filter(|(_, f)| f.is_none()) {
                if under >= over && *share < self.floor {
                    *fixed = Some(self.floor);
                }
                if over >= under && *share > self.ceiling {
                    *fixed = Some(self.ceiling);
                }
            }
        }
    }
}

/// The free weights in proportion, so that they sum to `left`; evenly if none of
/// them has any weight. Fixed ones stay.
fn scaled_to(left: f64, weights: &[f64], fixed: &[Option<f64>]) -> Vec<f64> {
    let free = || weights.iter().zip(fixed).filter(|(_, fixed)| fixed.is_none());
    let sum: f64 = free().map(|(weight, _)| weight).sum();
    let even = left.max(0.0) / free().count().max(1) as f64;
    let share = |weight: &f64| if sum > 0.0 { weight / sum * left.max(0.0) } else { even };
    weights.iter().zip(fixed).map(|(weight, fixed)| fixed.unwrap_or_else(|| share(weight))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn bounded(floor: f64, ceiling: f64, probabilities: &[f64]) -> Vec<f64> {
        let wrapped: Vec<_> = probabilities.iter().copied().map(Some).collect();
        Bounds::new(floor, ceiling).unwrap().apply(&wrapped).unwrap()
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    #[test]
    fn arms_below_the_floor_are_lifted_and_the_others_scaled() {
        close(&bounded(0.1, 1.0, &[0.8, 0.15, 0.05]), &[0.8 / 0.95 * 0.9, 0.15 / 0.95 * 0.9, 0.1]);
        // Scaling pushes the second arm below the floor too.
        close(&bounded(0.1, 1.0, &[0.9, 0.1, 0.0]), &[0.8, 0.1, 0.1]);
    }

    #[test]
    fn a_ceiling_hands_on_what_it_cuts_off() {
        close(&bounded(0.0, 0.5, &[0.8, 0.15, 0.05]), &[0.5, 0.375, 0.125]);
        close(&bounded(0.05, 0.6, &[1.0, 0.0, 0.0]), &[0.6, 0.2, 0.2]);
    }

    #[test]
    fn quarantined_arms_get_nothing_and_need_no_floor() {
        let bounds = Bounds::new(0.4, 1.0).unwrap();
        close(&bounds.apply(&[Some(0.9), None, Some(0.1)]).unwrap(), &[0.6, 0.0, 0.4]);
        assert_eq!(bounds.apply(&[None, None]), Err(BanditError::NoArms));
    }

    #[test]
    fn bounds_that_do_not_fit_are_refused_with_what_would() {
        let floors = Bounds::new(0.4, 1.0).unwrap().apply(&[Some(0.5); 3]).unwrap_err();
        assert!(floors.to_string().contains("lower it to 0.333"), "{floors}");
        let ceilings = Bounds::new(0.0, 0.2).unwrap().apply(&[Some(0.5); 4]).unwrap_err();
        assert!(ceilings.to_string().contains("raise it to 0.25"), "{ceilings}");
        assert!(Bounds::new(0.5, 0.4).is_err());
        assert!(Bounds::new(-0.1, 1.0).is_err() && Bounds::new(0.0, 1.1).is_err());
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_keep_bounds_and_order(
            weights in prop::collection::vec(0.0f64..1.0, 1..20),
            floor in 0.0f64..1.0,
            ceiling in 1.0f64..4.0,
        ) {
            let arms = weights.len() as f64;
            let (floor, ceiling) = (floor / arms, (ceiling / arms).min(1.0));
            let shares = bounded(floor, ceiling, &weights);
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            for (one, share) in weights.iter().zip(&shares) {
                prop_assert!(*share >= floor - 1e-12 && *share <= ceiling + 1e-12);
                for (other, other_share) in weights.iter().zip(&shares) {
                    prop_assert!(one < other || share + 1e-12 >= *other_share);
                }
            }
        }
    }
}
