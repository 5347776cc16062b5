//! Where a function crosses zero: by false position while that is quick, by halving
//! where it is not, so that the bracket always shrinks and the answer is certain.

/// Steps after which any finite bracket has shrunk to neighbours.
const STEPS_MAX: u32 = 300;
/// Steps in which the bracket must have halved, or else it is halved.
const PATIENCE: u32 = 3;
/// Width of the bracket that is good enough, as a fraction of its larger end.
const RELATIVE_WIDTH: f64 = 1e-14;

/// The point between `below` and `above` where `function` turns from negative to
/// positive; `above` may be the smaller number.
///
/// The function must cross once; at the ends it may be infinite or NaN, which is
/// taken as the sign that the end should have. False position in the manner of
/// Illinois (Dowell & Jarratt, BIT 1971).
pub(crate) fn crossing(below: f64, above: f64, function: impl Fn(f64) -> f64) -> f64 {
    let mut below = End { at: below, value: function(below) };
    let mut above = End { at: above, value: function(above) };
    let mut halved_at = (below.at - above.at).abs();
    let mut patience = PATIENCE;
    let mut last_was_above = None;
    for _ in 0..STEPS_MAX {
        let width = (above.at - below.at).abs();
        let middle = below.at + (above.at - below.at) / 2.0;
        let narrow = RELATIVE_WIDTH * below.at.abs().max(above.at.abs());
        if width <= narrow || middle == below.at || middle == above.at {
            break;
        }
        if width <= halved_at / 2.0 {
            halved_at = width;
            patience = PATIENCE;
        }
        let guess = if patience == 0 { middle } else { false_position(&below, &above, middle) };
        patience = if patience == 0 { PATIENCE } else { patience - 1 };

        let value = function(guess);
        let is_above = value >= 0.0;
        // An end that stays twice counts half, so that it moves soon.
        if last_was_above == Some(is_above) {
            let stays = if is_above { &mut below } else { &mut above };
            stays.value /= 2.0;
        }
        *(if is_above { &mut above } else { &mut below }) = End { at: guess, value };
        last_was_above = Some(is_above);
        if value == 0.0 {
            return guess;
        }
    }
    below.at + (above.at - below.at) / 2.0
}

struct End {
    at: f64,
    value: f64,
}

/// Where the straight line between the ends crosses; the middle if it does not
/// strictly between them.
fn false_position(below: &End, above: &End, middle: f64) -> f64 {
    let (from, to) = (below.at.min(above.at), below.at.max(above.at));
    let guess = below.at - below.value * (above.at - below.at) / (above.value - below.value);
    if guess > from && guess < to { guess } else { middle }
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
