//! Many comparisons at once: p-values enlarged so that looking at ten arms is no
//! easier way to a false winner than looking at one.
//!
//! Of always-valid p-values the adjusted ones are always valid too.

use crate::error::InferenceError;
use crate::quantity::Alpha;

/// Which error is held below alpha, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Correction {
    /// None: for guardrails, each of which has a level of its own.
    None,
    /// Any false rejection; Bonferroni, one step.
    Bonferroni,
    /// Any false rejection; Holm, Scandinavian Journal of Statistics 1979. Never
    /// weaker than Bonferroni.
    #[default]
    Holm,
    /// The share of false ones among the rejections, for tests that are independent
    /// or positively dependent; Benjamini & Hochberg, JRSS-B 1995.
    BenjaminiHochberg,
    /// The same under any dependence; Benjamini & Yekutieli, Annals of Statistics 2001.
    BenjaminiYekutieli,
}

impl Correction {
    /// The adjusted p-values, in the order given: reject those at or below alpha.
    pub fn adjust(self, p_values: &[f64]) -> Result<Vec<f64>, InferenceError> {
        for p in p_values {
            if !(0.0..=1.0).contains(p) {
                return Err(InferenceError::NotBetweenZeroAndOne { what: "a p-value", got: *p });
            }
        }
        let tests = p_values.len() as f64;
        let mut ascending: Vec<usize> = (0..p_values.len()).collect();
        ascending.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));

        let adjusted = match self {
            Self::None => p_values.to_vec(),
            Self::Bonferroni => p_values.iter().map(|p| p * tests).collect(),
            Self::Holm => step_down(p_values, &ascending),
            Self::BenjaminiHochberg => step_up(p_values, &ascending, tests),
            Self::BenjaminiYekutieli => {
                let harmonic: f64 = (1..=p_values.len()).map(|k| 1.0 / k as f64).sum();
                step_up(p_values, &ascending, tests * harmonic)
            }
        };
        Ok(adjusted.into_iter().map(|p| p.min(1.0)).collect())
    }

    /// The share of alpha with which intervals of `tests` arms hold all at once.
    #[must_use]
    pub fn simultaneous(self, alpha: Alpha, tests: usize) -> Alpha {
        match self {
            Self::None => alpha,
            _ => alpha.share(1.0 / tests.max(1) as f64),
        }
    }
}

/// The k-th smallest times the number of tests left, never below the one before.
fn step_down(p_values: &[f64], ascending: &[usize]) -> Vec<f64> {
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, index) in ascending.iter().enumerate() {
        largest = largest.max(p_values[*index] * (p_values.len() - rank) as f64);
        adjusted[*index] = largest;
    }
    adjusted
}

/// The k-th smallest times `factor` / k, never above the one after.
fn step_up(p_values: &[f64], ascending: &[usize], factor: f64) -> Vec<f64> {
    let mut adjusted = vec![0.0; p_values.len()];
    let mut smallest = f64::INFINITY;
    for (rank, index) in ascending.iter().enumerate().rev() {
        smallest = smallest.min(p_values[*index] * factor / (rank + 1) as f64);
        adjusted[*index] = smallest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn adjusted_p_values_keep_their_places() {
        let p = [0.04, 0.01, 0.03];
        assert_eq!(Correction::None.adjust(&p).unwrap(), p);
        let close = |got: Vec<f64>, expected: [f64; 3]| {
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-15, "{got} {expected}");
            }
        };
        close(Correction::Holm.adjust(&p).unwrap(), [0.06, 0.03, 0.06]);
        close(Correction::BenjaminiHochberg.adjust(&p).unwrap(), [0.04, 0.03, 0.04]);
        close(Correction::Bonferroni.adjust(&p).unwrap(), [0.12, 0.03, 0.09]);
        assert!(Correction::Holm.adjust(&[]).unwrap().is_empty());
        assert!(Correction::Holm.adjust(&[f64::NAN]).is_err());
    }
}
