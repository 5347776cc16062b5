//! The distributions that tests compare with: one place that knows who computes them.

use std::f64::consts::FRAC_1_SQRT_2;

use statrs::distribution::{ChiSquared, ContinuousCDF, Normal, StudentsT};
use statrs::function::beta::inv_beta_reg;

use crate::error::{InferenceError, positive};
use crate::quantity::Probability;

/// P(Z <= z) of the standard normal distribution.
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * FRAC_1_SQRT_2)
}

/// P(Z > z) of the standard normal distribution, exact also far out.
#[must_use]
pub fn normal_upper_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// The z below which the standard normal distribution has this probability;
/// infinite at 0 and 1.
#[must_use]
pub fn normal_quantile(probability: Probability) -> f64 {
    Normal::standard().inverse_cdf(probability.get())
}

/// P(X > statistic) of the chi-squared distribution: the p-value of a fit.
/// 1 for a statistic of 0 or less.
pub fn chi_squared_upper_tail(statistic: f64, degrees_of_freedom: f64) -> Result<f64, InferenceError> {
    let degrees = positive("degrees of freedom", degrees_of_freedom)?;
    let distribution = ChiSquared::new(degrees)
        .map_err(|_| InferenceError::NotPositive { what: "degrees of freedom", got: degrees })?;
    if statistic <= 0.0 {
        return Ok(1.0);
    }
    if statistic.is_infinite() {
        return Ok(0.0);
    }
    Ok(distribution.sf(statistic))
}

/// P(T <= t) of Student's t distribution.
pub fn student_cdf(t: f64, degrees_of_freedom: f64) -> Result<f64, InferenceError> {
    Ok(student(degrees_of_freedom)?.cdf(t))
}

/// P(T > t) of Student's t distribution, exact also far out.
pub fn student_upper_tail(t: f64, degrees_of_freedom: f64) -> Result<f64, InferenceError> {
    Ok(student(degrees_of_freedom)?.sf(t))
}

/// The t below which Student's distribution has this probability.
pub fn student_quantile(probability: Probability, degrees_of_freedom: f64) -> Result<f64, InferenceError> {
    Ok(student(degrees_of_freedom)?.inverse_cdf(probability.get()))
}

fn student(degrees_of_freedom: f64) -> Result<StudentsT, InferenceError> {
    let degrees = positive("degrees of freedom", degrees_of_freedom)?;
    StudentsT::new(0.0, 1.0, degrees)
        .map_err(|_| InferenceError::NotPositive { what: "degrees of freedom", got: degrees })
}

/// The x below which a Beta(a, b) distribution has this probability.
pub fn beta_quantile(a: f64, b: f64, probability: Probability) -> Result<f64, InferenceError> {
    positive("the first shape of a beta distribution", a)?;
    positive("the second shape of a beta distribution", b)?;
    let probability = probability.get();
    if probability == 0.0 || probability == 1.0 {
        return Ok(probability);
    }
    Ok(inv_beta_reg(a, b, probability))
}

/// ln Γ(x) for x above 0.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// ln B(a, b).
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}
