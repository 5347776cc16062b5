//! Gauss-Legendre quadrature on panels, with the integral up to each node as well:
//! so one pass over a density gives its distribution function too.

use std::sync::LazyLock;

/// Nodes of one panel. Exact for polynomials of degree 31; on panels as wide as
/// the spread of a density, exact to the last digits of a float.
pub(crate) const NODES: usize = 16;

/// Steps after which Newton's method has certainly converged from its start.
const NEWTON_STEPS: usize = 8;

/// Values at the nodes of a panel.
pub(crate) type Values = [f64; NODES];

/// Nodes and weights on [-1, 1].
pub(crate) struct Rule {
    nodes: Values,
    weights: Values,
    /// Row i integrates the interpolating polynomial from -1 to node i.
    partial: [Values; NODES],
}

/// The rule, computed once.
pub(crate) static RULE: LazyLock<Rule> = LazyLock::new(Rule::new);

impl Rule {
    fn new() -> Self {
        let (mut nodes, mut weights) = ([0.0; NODES], [0.0; NODES]);
        for (i, (node, weight)) in nodes.iter_mut().zip(&mut weights).enumerate() {
            let angle = std::f64::consts::PI * (i as f64 + 0.75) / (NODES as f64 + 0.5);
            let mut x = -angle.cos();
            for _ in 0..NEWTON_STEPS {
                let (value, slope) = value_and_slope(x);
                x -= value / slope;
            }
            let (_, slope) = value_and_slope(x);
            *node = x;
            *weight = 2.0 / ((1.0 - x * x) * slope * slope);
        }
        let polynomials = nodes.map(legendre);
        let mut partial = [[0.0; NODES]; NODES];
        for (row, upto) in partial.iter_mut().zip(&polynomials) {
            for (j, entry) in row.iter_mut().enumerate() {
                // The cardinal polynomial of node j, in Legendre polynomials,
                // each of which has its antiderivative in its two neighbours.
                let at = &polynomials[j];
                let mut sum = upto[1] + upto[0];
                for k in 1..NODES {
                    sum += at[k] * (upto[k + 1] - upto[k - 1]);
                }
                *entry = weights[j] / 2.0 * sum;
            }
        }
        Self { nodes, weights, partial }
    }

    /// The nodes of the panel between `low` and `high`.
    pub(crate) fn nodes(&self, low: f64, high: f64) -> Values {
        let (middle, half) = (low + (high - low) / 2.0, (high - low) / 2.0);
        self.nodes.map(|node| middle + half * node)
    }

    /// The weights of a panel of this width.
    pub(crate) fn weights(&self, width: f64) -> Values {
        self.weights.map(|weight| weight * width / 2.0)
    }

    /// The integral over a panel of this width.
    pub(crate) fn integral(&self, width: f64, values: &Values) -> f64 {
        dot(&self.weights, values) * width / 2.0
    }

    /// The integrals from the start of a panel of this width up to each node.
    pub(crate) fn running(&self, width: f64, values: &Values) -> Values {
        self.partial.map(|row| dot(&row, values) * width / 2.0)
    }
}

fn dot(one: &Values, other: &Values) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The Legendre polynomials of degree 0 to `NODES` at x.
fn legendre(x: f64) -> [f64; NODES + 1] {
    let mut values = [1.0; NODES + 1];
    values[1] = x;
    for k in 1..NODES {
        let degree = k as f64;
        values[k + 1] = ((2.0 * degree + 1.0) * x * values[k] - degree * values[k - 1]) / (degree + 1.0);
    }
    values
}

/// The polynomial whose zeros are the nodes, and its derivative.
fn value_and_slope(x: f64) -> (f64, f64) {
    let values = legendre(x);
    let slope = NODES as f64 * (x * values[NODES] - values[NODES - 1]) / (x * x - 1.0);
    (values[NODES], slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrates_a_bell_and_its_running_integral() {
        let nodes = RULE.nodes(-1.0, 3.0);
        let values = nodes.map(f64::exp);
        assert!((RULE.integral(4.0, &values) - (3f64.exp() - (-1f64).exp())).abs() < 1e-13);
        for (x, integral) in nodes.iter().zip(RULE.running(4.0, &values)) {
            assert!((integral - (x.exp() - (-1f64).exp())).abs() < 1e-13, "up to {x}");
        }
    }

    #[test]
    fn weights_of_a_panel_sum_to_its_width() {
        assert!((RULE.weights(2.5).iter().sum::<f64>() - 2.5).abs() < 1e-14);
    }
}
