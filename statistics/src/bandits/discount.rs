//! Forgetting in a changing world, such that the order of arrival does not matter.
//!
//! Discounted Thompson sampling (Raj, Kalyani 2017, arXiv:1707.09727) multiplies
//! its sums by γ once per batch. Kept that way, a late reward would have to know
//! how often its sums were multiplied meanwhile. Here exact sums are kept per batch
//! and weighed when they are read: `Σ r · γ^(now - batch)`. A reward that is late
//! or taken back changes its own batch, and the outcome is the same in any order.
//! Weights are fixed-point and multiplied as integers, so they are the same on
//! every platform.

use std::collections::BTreeMap;

use super::error::BanditError;
use crate::error::InferenceError;
use crate::sums::Moments;

/// Bits after the point of a power of γ.
const POWER_BITS: u32 = 62;

/// Bits after the point of a weight. The sum of a metric has 119 bits at most
/// with it: it fits.
const WEIGHT_BITS: u32 = 40;

/// The number of a batch: a counter that only grows, such as evaluation intervals
/// of log time. Not a log index, which grows with unrelated entries: forgetting is
/// per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(pub u64);

/// How fast is forgotten: the weight of a batch by its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discount {
    /// γ^(2^i) in units of 2⁻⁶²; empty if nothing is forgotten.
    powers: Vec<u64>,
}

impl Discount {
    /// Remembers everything alike.
    pub const NONE: Self = Self { powers: Vec::new() };

    /// With γ per batch, above 0, at most 1.
    pub fn per_batch(gamma: f64) -> Result<Self, BanditError> {
        if !(gamma > 0.0 && gamma <= 1.0) {
            return Err(BanditError::OutOfRange {
                what: "the discount per batch",
                got: gamma,
                expected: "above 0, and 1 at most",
            });
        }
        if gamma == 1.0 {
            return Ok(Self::NONE);
        }
        // Scaling by a power of two is exact.
        let mut power = (gamma * 2f64.powi(POWER_BITS as i32)) as u64;
        let mut powers = Vec::new();
        while power > 0 && powers.len() < u64::BITS as usize {
            powers.push(power);
            power = product(power, power);
        }
        Ok(Self { powers })
    }

    /// Such that what is this many batches old counts half.
    pub fn half_life(batches: f64) -> Result<Self, BanditError> {
        Self::per_batch(gamma_of_half_life(batches)?)
    }

    /// The weight at an age, in units of 2⁻⁴⁰.
    #[must_use]
    pub fn weight(&self, age: u64) -> u64 {
        let one = 1u64 << POWER_BITS;
        if self.powers.is_empty() {
            return one >> (POWER_BITS - WEIGHT_BITS);
        }
        let mut power = one;
        for bit in 0..u64::BITS {
            if age >> bit & 1 == 1 {
                // Powers that are not in the table have become 0.
                power = self.powers.get(bit as usize).map_or(0, |square| product(power, *square));
            }
        }
        let half = 1u64 << (POWER_BITS - WEIGHT_BITS - 1);
        (power + half) >> (POWER_BITS - WEIGHT_BITS)
    }

    /// Whether weights at this age, and at any larger one, are 0: such batches may
    /// be dropped without changing anything.
    #[must_use]
    pub fn forgets(&self, age: u64) -> bool {
        self.weight(age) == 0
    }
}

/// `2^(-1 / L)`: the discount per batch that halves in `batches` batches.
pub fn gamma_of_half_life(batches: f64) -> Result<f64, BanditError> {
    let batches = super::error::positive("the half-life in batches", batches)?;
    Ok((-1.0 / batches).exp2())
}

fn product(one: u64, other: u64) -> u64 {
    let half = 1u128 << (POWER_BITS - 1);
    ((u128::from(one) * u128::from(other) + half) >> POWER_BITS) as u64
}

/// The rewards of one arm, exactly, by the batch in which its decisions were made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArmRewards {
    batches: BTreeMap<Batch, Moments>,
}

impl ArmRewards {
    /// Adds rewards of decisions of `batch`, however late they are; unchanged on error.
    pub fn add(&mut self, batch: Batch, rewards: &Moments) -> Result<(), BanditError> {
        if rewards.count() == 0 {
            return Ok(());
        }
        let mut sums = self.batches.get(&batch).copied().unwrap_or_default();
        sums.merge(rewards)?;
        self.batches.insert(batch, sums);
        Ok(())
    }

    /// Takes rewards back that had been added; unchanged on error.
    pub fn take_back(&mut self, batch: Batch, rewards: &Moments) -> Result<(), BanditError> {
        let mut sums = self.batches.get(&batch).copied().unwrap_or_default();
        sums.take_back(rewards)?;
        if sums.count() == 0 {
            self.batches.remove(&batch);
        } else {
            self.batches.insert(batch, sums);
        }
        Ok(())
    }

    /// Drops batches that weigh nothing any more at `now`. Their rewards are gone:
    /// should one be taken back later, that is refused.
    pub fn forget(&mut self, discount: &Discount, now: Batch) {
        self.batches.retain(|batch, _| !discount.forgets(now.0.saturating_sub(batch.0)));
    }

    /// The batches that hold rewards, in order.
    pub fn batches(&self) -> impl Iterator<Item = (Batch, &Moments)> {
        self.batches.iter().map(|(batch, sums)| (*batch, sums))
    }

    /// How many rewards are held, each counted whole.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.batches.values().map(Moments::count).fold(0, u64::saturating_add)
    }

    /// Everything, weighed at `now`. Batches after `now` count whole.
    pub fn discounted(&self, discount: &Discount, now: Batch) -> Result<Discounted, BanditError> {
        let overflow = || InferenceError::Overflow { what: "discounted rewards" };
        let (mut count, mut sum) = (0i128, 0i128);
        for (batch, sums) in &self.batches {
            let weight = i128::from(discount.weight(now.0.saturating_sub(batch.0)));
            let weighed = i128::from(sums.count()).checked_mul(weight);
            count = weighed.and_then(|part| count.checked_add(part)).ok_or_else(overflow)?;
            let weighed = sums.sum_units().checked_mul(weight);
            sum = weighed.and_then(|part| sum.checked_add(part)).ok_or_else(overflow)?;
        }
        let mut weighed = Discounted { count, sum, squares_around_mean: 0.0 };
        let mean = weighed.mean().unwrap_or(0.0);
        for (batch, sums) in &self.batches {
            let weight = discount.weight(now.0.saturating_sub(batch.0)) as f64 / units(WEIGHT_BITS);
            let within = sums.variance().unwrap_or(0.0) * (sums.count() as f64 - 1.0);
            let apart = sums.mean().unwrap_or(mean) - mean;
            weighed.squares_around_mean += weight * (within + sums.count() as f64 * apart * apart);
        }
        Ok(weighed)
    }
}

/// Rewards weighed by their age.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Discounted {
    /// Units of 2⁻⁴⁰.
    count: i128,
    /// Units of 2⁻⁶⁴: of a reward's 2⁻²⁴ and of a weight's 2⁻⁴⁰.
    sum: i128,
    squares_around_mean: f64,
}

impl Discounted {
    /// How many rewards this is worth.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.count as f64 / units(WEIGHT_BITS)
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum as f64 / units(WEIGHT_BITS + 24)
    }

    /// Their mean; `None` of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count())
    }

    /// `Σ w (r - mean)²`.
    #[must_use]
    pub fn squares_around_mean(&self) -> f64 {
        self.squares_around_mean
    }

    /// Count and sum as the integers they are, to compare to the last bit.
    #[must_use]
    pub fn units(&self) -> (i128, i128) {
        (self.count, self.sum)
    }
}

fn units(bits: u32) -> f64 {
    2f64.powi(bits as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;
    use crate::sums::Fixed;

    fn reward(value: f64) -> Moments {
        let mut sums = Moments::default();
        sums.observe(Fixed::from_f64(value).unwrap()).unwrap();
        sums
    }

    #[test]
    fn weights_are_the_powers_of_gamma() {
        for gamma in [0.5, 0.9, 0.99, 0.999_9] {
            let discount = Discount::per_batch(gamma).unwrap();
            for age in [0, 1, 2, 3, 10, 77, 1_000, 100_000] {
                let got = discount.weight(age) as f64 / 2f64.powi(40);
                assert!((got - gamma.powf(age as f64)).abs() < 1e-11, "{gamma}^{age} is {got}");
            }
        }
        assert_eq!(Discount::NONE.weight(u64::MAX), 1 << 40);
        assert_eq!(Discount::per_batch(0.5).unwrap().weight(3), 1 << 37);
    }

    #[test]
    fn half_is_left_after_the_half_life_and_nothing_after_long() {
        let discount = Discount::half_life(12.0).unwrap();
        assert!(discount.weight(12).abs_diff(1 << 39) <= 1);
        assert!(discount.weight(24).abs_diff(1 << 38) <= 1);
        assert!(!discount.forgets(480) && discount.forgets(12 * 42) && discount.forgets(u64::MAX));
        assert!(Discount::half_life(0.0).is_err());
        assert!(Discount::per_batch(0.0).is_err() && Discount::per_batch(1.1).is_err());
    }

    #[test]
    fn what_weighs_nothing_is_dropped_without_changing_anything() {
        let discount = Discount::half_life(1.0).unwrap();
        let mut rewards = ArmRewards::default();
        for batch in 0..100 {
            rewards.add(Batch(batch), &reward(3.0)).unwrap();
        }
        let before = rewards.discounted(&discount, Batch(99)).unwrap();
        rewards.forget(&discount, Batch(99));
        assert!(rewards.samples() < 43);
        assert_eq!(rewards.discounted(&discount, Batch(99)).unwrap(), before);
    }

    #[test]
    fn a_small_spread_around_a_large_mean_is_not_lost() {
        let mut rewards = ArmRewards::default();
        for (batch, value) in [(0, 1e6 - 0.5), (0, 1e6 + 0.5), (1, 1e6 - 0.5), (2, 1e6 + 0.5)] {
            rewards.add(Batch(batch), &reward(value)).unwrap();
        }
        let all = rewards.discounted(&Discount::NONE, Batch(2)).unwrap();
        assert_eq!((all.count(), all.sum(), all.mean()), (4.0, 4e6, Some(1e6)));
        assert!((all.squares_around_mean() - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn late_reordered_and_retracted_rewards_give_the_same_state(
            kept in prop::collection::vec((0u64..30, -1e3f64..1e3), 0..60),
            poisoned in prop::collection::vec((0u64..30, -1e3f64..1e3), 0..20),
            seed in any::<u64>(),
            gamma in 0.5f64..1.0,
        ) {
            let discount = Discount::per_batch(gamma).unwrap();
            let mut in_order = ArmRewards::default();
            for (batch, value) in &kept {
                in_order.add(Batch(*batch), &reward(*value)).unwrap();
            }

            let mut shuffled: Vec<_> = kept.iter().chain(&poisoned).collect();
            shuffled.sort_by_key(|(batch, value)| {
                (value.to_bits() ^ seed ^ batch).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            });
            let mut late = ArmRewards::default();
            for (batch, value) in shuffled {
                late.add(Batch(*batch), &reward(*value)).unwrap();
            }
            for (batch, value) in poisoned.iter().rev() {
                late.take_back(Batch(*batch), &reward(*value)).unwrap();
            }

            prop_assert_eq!(&late, &in_order);
            let bytes = |rewards: &ArmRewards| -> Vec<u8> {
                rewards.batches().flat_map(|(_, sums)| sums.to_bytes()).collect()
            };
            prop_assert_eq!(bytes(&late), bytes(&in_order));
            let (one, other) = (
                late.discounted(&discount, Batch(30)).unwrap(),
                in_order.discounted(&discount, Batch(30)).unwrap(),
            );
            prop_assert_eq!(one.units(), other.units());
            prop_assert_eq!(
                one.squares_around_mean().to_bits(), other.squares_around_mean().to_bits()
            );
        }
    }
}
