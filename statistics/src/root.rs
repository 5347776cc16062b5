//! Where a growing function crosses zero, by halving: slow, certain, and the same
//! to the last bits wherever the function is.

/// Halvings after which the ends of any finite bracket are neighbours for all purposes.
const HALVINGS_MAX: u32 = 200;

/// The point in `[below, above]` where `function` turns from negative to positive.
///
/// The function must not be positive at `below` nor negative at `above`, and must
/// cross once; the ends are not evaluated. The answer is exact to a few units in
/// the last place of the larger end.
pub(crate) fn crossing(mut below: f64, mut above: f64, function: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..HALVINGS_MAX {
        let middle = below + (above - below) / 2.0;
        if middle == below || middle == above {
            break;
        }
        let tolerance = 4.0 * f64::EPSILON * below.abs().max(above.abs());
        if (above - below).abs() <= tolerance {
            break;
        }
        if function(middle) < 0.0 {
            below = middle;
        } else {
            above = middle;
        }
    }
    below + (above - below) / 2.0
}

/// The first of `start`, 2 `start`, 4 `start`, … at which `function` is positive;
/// infinity if it never is.
pub(crate) fn doubled_until_positive(start: f64, function: impl Fn(f64) -> f64) -> f64 {
    let mut above = start;
    while above.is_finite() && function(above) <= 0.0 {
        above *= 2.0;
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_root_of_two_from_either_side() {
        let root = crossing(0.0, 2.0, |x| x * x - 2.0);
        assert!((root - std::f64::consts::SQRT_2).abs() < 1e-15);
        // A falling function has its negative end above.
        let root = crossing(2.0, 0.0, |x| 2.0 - x * x);
        assert!((root - std::f64::consts::SQRT_2).abs() < 1e-15);
    }

    #[test]
    fn doubles_until_a_function_is_positive() {
        assert_eq!(doubled_until_positive(1.0, |x| x - 5.0), 8.0);
        assert!(doubled_until_positive(1.0, |_| -1.0).is_infinite());
    }
}
