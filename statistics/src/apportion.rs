//! Real weights as whole parts, by largest remainder (Hamilton's method): every
//! node that is given the same weights gives each arm the same number of buckets.

use thiserror::Error;

/// How many parts make the whole where nothing else is said.
pub const PARTS_PER_MILLION: u32 = 1_000_000;

/// The heaviest weight becomes an integer of this many bits. A weight less than a
/// thousandth of it loses bits that no part per million can see.
const WEIGHT_BITS: i32 = 62;

/// Weights that cannot be made parts.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ApportionError {
    /// A weight that is negative, infinite or not a number.
    #[error("weight {position} is {got}, but must be a finite number of 0 or more")]
    NotAWeight {
        /// Which, counted from 0.
        position: usize,
        /// What came.
        got: f64,
    },
    /// No weights, or all of them 0.
    #[error("the weights sum to 0: at least one must be above 0")]
    Nothing,
}

/// Shares `parts` out in proportion to the weights, which need not sum to 1.
///
/// Each gets the whole number below its quota; what is left goes one by one to the
/// largest remainders, ties to the earlier position. After the weights have become
/// integers everything is exact, so the parts always sum to `parts`.
pub fn apportion(weights: &[f64], parts: u32) -> Result<Vec<u32>, ApportionError> {
    let refused = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0));
    if let Some(position) = refused {
        return Err(ApportionError::NotAWeight { position, got: weights[position] });
    }
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    if heaviest == 0.0 {
        return Err(ApportionError::Nothing);
    }
    let integers: Vec<u128> = weights.iter().map(|weight| integer(*weight, heaviest)).collect();
    let whole: u128 = integers.iter().sum();

    let mut remainders = Vec::with_capacity(weights.len());
    let mut shares = Vec::with_capacity(weights.len());
    for (position, weight) in integers.iter().enumerate() {
        let quota = weight * u128::from(parts);
        shares.push((quota / whole) as u32);
        remainders.push((quota % whole, position));
    }
    let given: u32 = shares.iter().sum();
    remainders.sort_by(|(one, first), (other, second)| other.cmp(one).then(first.cmp(second)));
    for (_, position) in remainders.into_iter().take((parts - given) as usize) {
        shares[position] += 1;
    }
    Ok(shares)
}

/// A weight as an integer, the heaviest having [`WEIGHT_BITS`] bits. Scaling by a
/// power of two keeps the mantissa as it is; it is done in two steps because the
/// power itself may leave the range of a float.
fn integer(weight: f64, heaviest: f64) -> u128 {
    let exponent = heaviest.log2().floor() as i32;
    let shift = WEIGHT_BITS - 1 - exponent;
    let half = shift / 2;
    let scaled = weight * 2f64.powi(half) * 2f64.powi(shift - half);
    scaled.round_ties_even() as u128
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_go_to_the_earlier_arm() {
        assert_eq!(apportion(&[1.0; 3], 100).unwrap(), [34, 33, 33]);
        assert_eq!(apportion(&[1.0; 7], 100).unwrap(), [15, 15, 14, 14, 14, 14, 14]);
    }

    #[test]
    fn weights_of_any_magnitude_are_shared_alike() {
        for scale in [f64::MIN_POSITIVE, 1e-300, 1.0, 1e300] {
            assert_eq!(apportion(&[scale, 3.0 * scale], 1_000).unwrap(), [250, 750]);
        }
    }

    #[test]
    fn what_is_no_weight_is_refused_with_its_position() {
        assert_eq!(
            apportion(&[0.5, -0.5], 100).unwrap_err().to_string(),
            "weight 1 is -0.5, but must be a finite number of 0 or more"
        );
        assert!(apportion(&[f64::NAN], 100).is_err());
        assert_eq!(apportion(&[0.0, 0.0], 100), Err(ApportionError::Nothing));
        assert_eq!(apportion(&[], 100), Err(ApportionError::Nothing));
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_stay_within_one_of_the_quota(
            weights in prop::collection::vec(0.0f64..1.0, 1..40),
            parts in 1u32..2_000_000,
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0.0));
            let shares = apportion(&weights, parts).unwrap();
            prop_assert_eq!(shares.iter().sum::<u32>(), parts);
            let whole: f64 = weights.iter().sum();
            for (weight, share) in weights.iter().zip(shares) {
                let quota = weight / whole * f64::from(parts);
                prop_assert!((f64::from(share) - quota).abs() < 1.0 + 1e-6);
            }
        }
    }
}
