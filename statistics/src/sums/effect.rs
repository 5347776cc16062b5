//! The difference between two arms, and how sure it is.
//!
//! Stratified: within each stratum both arms saw the same world, so only
//! differences within strata count. They are averaged with the weights
//! n_a n_b / (n_a + n_b), those of a regression with a fixed effect per stratum
//! (and of Cochran, Biometrics 1954, for proportions): a stratum in which one arm
//! is nearly absent says little, so a ramp whose base rate moves invents nothing.
//!
//! Clustered: the influence of cluster g on the estimate,
//! ψ_g = Σ_e W_e [ (s_bge - m_be n_bge) / n_be - (s_age - m_ae n_age) / n_ae ],
//! sums what its units did in either arm and in all strata; the variance is
//! Σ_g ψ_g² (Liang & Zeger, Biometrika 1986), each residual enlarged by
//! √(c / (c - 1)) for the mean that its c clusters also had to estimate.

use std::collections::BTreeMap;

use super::arm::{ArmSums, CLUSTERS, Stratum};
use super::moments::Moments;
use crate::error::{InferenceError, finite, positive};

/// One arm's mean and the variance of that mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanEstimate {
    /// The mean.
    pub mean: f64,
    /// The variance of the mean: that of one observation over their number.
    pub variance: f64,
    /// How many observations.
    pub count: u64,
}

impl MeanEstimate {
    /// Of independent observations (one per unit).
    pub fn from_moments(moments: &Moments) -> Result<Self, InferenceError> {
        let too_few = || InferenceError::TooFew { what: "observations", have: moments.count(), need: 2 };
        let mean = moments.mean().ok_or_else(too_few)?;
        let variance = moments.variance().ok_or_else(too_few)?;
        Ok(Self { mean, variance: variance / moments.count() as f64, count: moments.count() })
    }
}

/// An estimated difference, treatment minus control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// The difference.
    pub estimate: f64,
    /// The variance of the estimate, above 0.
    pub variance: f64,
    /// Observations behind it, both arms together.
    pub count: u64,
}

impl Effect {
    /// The difference of two independent means. Refuses means without any spread:
    /// there is nothing to say yet how sure they are.
    pub fn difference(control: &MeanEstimate, treatment: &MeanEstimate) -> Result<Self, InferenceError> {
        Self::new(
            treatment.mean - control.mean,
            treatment.variance + control.variance,
            control.count.saturating_add(treatment.count),
        )
    }

    /// The relative difference (treatment - control) / control, its variance by the
    /// delta method. Refuses a control mean of 0.
    pub fn lift(control: &MeanEstimate, treatment: &MeanEstimate) -> Result<Self, InferenceError> {
        if control.mean == 0.0 {
            return Err(InferenceError::NotPositive {
                what: "the control's mean, of which a lift is a fraction,",
                got: 0.0,
            });
        }
        let ratio = treatment.mean / control.mean;
        let variance =
            (treatment.variance + ratio * ratio * control.variance) / (control.mean * control.mean);
        Self::new(ratio - 1.0, variance, control.count.saturating_add(treatment.count))
    }

    /// Accepts a finite estimate with a positive variance.
    pub fn new(estimate: f64, variance: f64, count: u64) -> Result<Self, InferenceError> {
        finite("the estimate of an effect", estimate)?;
        if variance == 0.0 {
            return Err(InferenceError::NoVariation { what: "the metric" });
        }
        positive("the variance of an effect", variance)?;
        Ok(Self { estimate, variance, count })
    }
}

/// The difference treatment - control over all strata in which both arms have at
/// least two clusters with observations.
///
/// # Errors
/// [`InferenceError::TooFew`] if there is no such stratum,
/// [`InferenceError::NoVariation`] if all observations are equal.
pub fn stratified_effect(control: &ArmSums, treatment: &ArmSums) -> Result<Effect, InferenceError> {
    let control_cells = cells_by_stratum(control)?;
    let treatment_cells = cells_by_stratum(treatment)?;

    let mut strata = Vec::new();
    let mut weight_total = 0.0;
    let mut count = 0_u64;
    for (stratum, a) in &control_cells {
        let Some(b) = treatment_cells.get(stratum) else { continue };
        if a.clusters.len() < 2 || b.clusters.len() < 2 {
            continue;
        }
        let weight = a.count() * b.count() / (a.count() + b.count());
        weight_total += weight;
        count = count.saturating_add(a.total.count()).saturating_add(b.total.count());
        strata.push((weight, a, b));
    }
    if strata.is_empty() {
        return Err(InferenceError::TooFew {
            what: "clusters in a stratum that both arms share",
            have: 0,
            need: 2,
        });
    }

    let mut estimate = 0.0;
    let mut influence = [0.0; CLUSTERS];
    for (weight, a, b) in strata {
        let share = weight / weight_total;
        estimate += share * (b.mean() - a.mean());
        b.add_influence(share, &mut influence);
        a.add_influence(-share, &mut influence);
    }
    let variance = influence.iter().map(|influence| influence * influence).sum();
    Effect::new(estimate, variance, count)
}

/// One arm in one stratum.
#[derive(Default)]
struct Cells<'sums> {
    total: Moments,
    clusters: Vec<(u8, &'sums Moments)>,
}

fn cells_by_stratum(sums: &ArmSums) -> Result<BTreeMap<Stratum, Cells<'_>>, InferenceError> {
    let mut strata: BTreeMap<Stratum, Cells<'_>> = BTreeMap::new();
    for (stratum, cluster, moments) in sums.cells() {
        let cells = strata.entry(stratum).or_default();
        cells.total.merge(moments)?;
        cells.clusters.push((cluster, moments));
    }
    Ok(strata)
}

impl Cells<'_> {
    fn count(&self) -> f64 {
        self.total.count() as f64
    }

    fn mean(&self) -> f64 {
        self.total.sum() / self.count()
    }

    fn add_influence(&self, share: f64, influence: &mut [f64; CLUSTERS]) {
        let clusters = self.clusters.len() as f64;
        let enlarged = (clusters / (clusters - 1.0)).sqrt();
        let mean = self.mean();
        for (cluster, moments) in &self.clusters {
            let residual = moments.sum() - mean * moments.count() as f64;
            influence[usize::from(*cluster)] += share * enlarged * residual / self.count();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::sums::Fixed;

    fn conversions(cells: &[(u64, u64, u64)]) -> ArmSums {
        // (stratum, successes, count), dealt over the clusters evenly.
        let mut sums = ArmSums::default();
        for (stratum, successes, count) in cells {
            for unit in 0..*count {
                let success = (unit + 1) * successes / count > unit * successes / count;
                let cluster = (unit * 7 % 256) as u8;
                sums.observe(Stratum(*stratum), cluster, Fixed::from_bool(success)).unwrap();
            }
        }
        sums
    }

    #[test]
    fn a_ramp_with_a_rising_base_rate_invents_no_effect() {
        // 10 % before, 30 % after, in both arms; the candidate's share goes from 5 % to 50 %.
        let control = conversions(&[(1, 950, 9500), (2, 1500, 5000)]);
        let treatment = conversions(&[(1, 50, 500), (2, 1500, 5000)]);

        let pooled = treatment.total().unwrap().mean().unwrap() - control.total().unwrap().mean().unwrap();
        assert!(pooled > 0.10, "pooling shows an effect of {pooled} that is not there");

        let effect = stratified_effect(&control, &treatment).unwrap();
        assert!(effect.estimate.abs() < 1e-12, "{effect:?}");
        assert_eq!(effect.count, 20_000);
    }

    #[test]
    fn strata_that_only_one_arm_saw_do_not_count() {
        let control = conversions(&[(1, 100, 1000), (2, 900, 1000)]);
        let treatment = conversions(&[(1, 120, 1000), (3, 5, 1000)]);
        let effect = stratified_effect(&control, &treatment).unwrap();
        assert!((effect.estimate - 0.02).abs() < 1e-12);
        assert_eq!(effect.count, 2000);
    }

    #[test]
    fn a_unit_that_repeats_itself_is_no_new_evidence() {
        let mut once = (ArmSums::default(), ArmSums::default());
        let mut often = (ArmSums::default(), ArmSums::default());
        for cluster in 0..=255_u8 {
            let value = Fixed::from_bool(cluster % 3 == 0);
            let other = Fixed::from_bool(cluster % 4 == 0);
            once.0.observe(Stratum(1), cluster, value).unwrap();
            once.1.observe(Stratum(1), cluster, other).unwrap();
            for _ in 0..50 {
                often.0.observe(Stratum(1), cluster, value).unwrap();
                often.1.observe(Stratum(1), cluster, other).unwrap();
            }
        }
        let once = stratified_effect(&once.0, &once.1).unwrap();
        let often = stratified_effect(&often.0, &often.1).unwrap();
        assert!((once.estimate - often.estimate).abs() < 1e-12);
        assert!((once.variance / often.variance - 1.0).abs() < 1e-12);
    }

    #[test]
    fn too_little_or_no_variation_is_said_rather_than_guessed() {
        let nothing = ArmSums::default();
        assert!(matches!(stratified_effect(&nothing, &nothing), Err(InferenceError::TooFew { .. })));
        let perfect = conversions(&[(1, 500, 500)]);
        assert!(matches!(stratified_effect(&perfect, &perfect), Err(InferenceError::NoVariation { .. })));
    }

    #[test]
    fn a_lift_of_nothing_is_refused() {
        let zero = MeanEstimate { mean: 0.0, variance: 0.1, count: 10 };
        let some = MeanEstimate { mean: 1.0, variance: 0.1, count: 10 };
        assert!(Effect::lift(&zero, &some).is_err());
    }
}
