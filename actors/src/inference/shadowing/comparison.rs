//! Whether the answer of a shadow agrees with the live one, output by output.
//! Pure.
//!
//! What is compared must have the same type and shape. Then:
//!
//! * *exact*: the same bytes. NaN agrees with a NaN of the same bits, and `0.0`
//!   does not agree with `-0.0`.
//! * *tolerance*: each number is as near to the live one as is allowed,
//!   absolutely or relative to the live one. An infinity agrees with itself, NaN
//!   with nothing. What are no numbers must be equal.
//! * *top-one*: in each row, along the last axis, the first greatest number is at
//!   the same place; a row with a NaN agrees with nothing. Where a row is a
//!   single value (of one axis or none, or the last one is 1 long) that value
//!   must be equal, and so must rows of what are no numbers: labels.
//! * *distance*: rows along the last axis are distributions, and half of the sum
//!   of the differences (the total variation distance) is allowed. A row with a
//!   negative number or NaN, or whose sum is not 1, agrees with nothing. What are
//!   no floating-point numbers must be equal.

use std::ops::Range;

use starling_proto::inference::ModelInferResponse;
use starling_raft::state::models::DataType;
use starling_raft::state::routes::shadows::{Agreement, Comparison};

use super::tensors::{Tensor, outputs};
use crate::inference::tensor::elements::{Elements, float, integer, show};

/// Distributions are seldom exact: sums of half-precision numbers are so far off.
const SUM_TOLERANCE: f64 = 0.01;
/// Two distributions at the allowed distance must not fail for its last bit.
const DISTANCE_ROUNDING: f64 = 1e-6;
const NANO: f64 = 1e-9;

/// How one output compares.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputVerdict {
    /// Its name.
    pub output: String,
    /// `None`: it agrees.
    pub difference: Option<Difference>,
}

/// Why an output does not agree.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Difference {
    /// The shadow's answer lacks it.
    #[error("the shadow does not give it")]
    Missing,
    /// The live answer lacks it.
    #[error("only the shadow gives it")]
    Extra,
    /// Of another type.
    #[error("the type is {live} live and {shadow} in the shadow")]
    Type {
        /// As the live answer says it.
        live: String,
        /// As the shadow says it.
        shadow: String,
    },
    /// Of another shape.
    #[error("the shape is {live:?} live and {shadow:?} in the shadow")]
    Shape {
        /// Of the live answer.
        live: Vec<i64>,
        /// Of the shadow's.
        shadow: Vec<i64>,
    },
    /// Contents that are not what type and shape promise.
    #[error("the contents do not fit their type and shape")]
    Unreadable,
    /// The first place that does not agree.
    #[error("at element {index} it is {live} live and {shadow} in the shadow ({rule})")]
    Values {
        /// Of the element, counted row by row from 0; where rows are compared, the
        /// first of the row, or the live row's greatest.
        index: usize,
        /// What is there.
        live: String,
        /// What the shadow has there.
        shadow: String,
        /// What is not kept.
        rule: &'static str,
    },
}

impl Difference {
    /// The place of the first difference, with both values; where there is one.
    pub fn place(&self) -> Option<(usize, &str, &str)> {
        match self {
            Self::Values { index, live, shadow, .. } => Some((*index, live, shadow)),
            _ => None,
        }
    }
}

/// One verdict for each output that either answer has, in order of name. The
/// answers agree if every output does.
pub fn compare(
    live: &ModelInferResponse,
    shadow: &ModelInferResponse,
    comparison: &Comparison,
) -> Vec<OutputVerdict> {
    let (live, mut shadow) = (outputs(live), outputs(shadow));
    let mut verdicts = Vec::with_capacity(live.len());
    for (name, live) in &live {
        let rule = rule_for(comparison, name);
        let difference = match shadow.remove(name) {
            Some(shadow) => difference(live, &shadow, rule),
            None => Some(Difference::Missing),
        };
        verdicts.push(OutputVerdict { output: (*name).to_owned(), difference });
    }
    for name in shadow.into_keys() {
        verdicts.push(OutputVerdict { output: name.to_owned(), difference: Some(Difference::Extra) });
    }
    verdicts.sort_by(|left, right| left.output.cmp(&right.output));
    verdicts
}

fn rule_for(comparison: &Comparison, output: &str) -> Agreement {
    let own = comparison.outputs.iter().find(|(name, _)| name == output);
    own.map_or(comparison.others, |(_, agreement)| *agreement)
}

fn difference(live: &Tensor<'_>, shadow: &Tensor<'_>, rule: Agreement) -> Option<Difference> {
    if live.datatype != shadow.datatype {
        return Some(Difference::Type { live: live.datatype.to_owned(), shadow: shadow.datatype.to_owned() });
    }
    if live.shape != shadow.shape {
        return Some(Difference::Shape { live: live.shape.to_vec(), shadow: shadow.shape.to_vec() });
    }
    let (Some(data_type), Some(live_raw), Some(shadow_raw)) = (live.data_type(), &live.raw, &shadow.raw)
    else {
        return Some(Difference::Unreadable);
    };
    let (live_elements, shadow_elements) =
        (Elements::of(data_type, live_raw), Elements::of(data_type, shadow_raw));
    let pair = Pair { data_type, live: live_elements, shadow: shadow_elements };
    let (rank, row) = (live.shape.len(), row_length(live.shape));
    match rule {
        // Equal bytes agree under every rule but where there is a NaN, or a row that
        // is no distribution.
        Agreement::Exact if live_raw == shadow_raw => None,
        Agreement::Exact => pair.first_unequal(),
        Agreement::Tolerance { absolute_nano, relative_nano } => {
            let (absolute, relative) = (absolute_nano as f64 * NANO, relative_nano as f64 * NANO);
            pair.first_beyond(absolute, relative)
        }
        Agreement::TopOne if rank < 2 || row == 1 => pair.first_other_value(),
        Agreement::TopOne => pair.first_other_top(row),
        Agreement::Distance { max } => pair.first_distant(row, f64::from(max.get()) / 1e6),
    }
}

/// Of the last axis; of a scalar: 1.
fn row_length(shape: &[i64]) -> usize {
    shape.last().map_or(1, |length| usize::try_from(*length).unwrap_or(0))
}

/// Two tensors of one type and shape.
struct Pair<'a> {
    data_type: DataType,
    live: Elements<'a>,
    shadow: Elements<'a>,
}

impl Pair<'_> {
    fn at(&self, index: usize, rule: &'static str) -> Difference {
        let text = |elements: &Elements<'_>| match elements.get(index) {
            Some(element) => show(self.data_type, element),
            None => String::new(),
        };
        Difference::Values { index, live: text(&self.live), shadow: text(&self.shadow), rule }
    }

    fn first(&self, rule: &'static str, agree: impl Fn(&[u8], &[u8]) -> bool) -> Option<Difference> {
        let mut pairs = self.live.iter().zip(self.shadow.iter());
        let index = pairs.position(|(live, shadow)| !agree(live, shadow))?;
        Some(self.at(index, rule))
    }

    fn first_unequal(&self) -> Option<Difference> {
        self.first("other bytes", |live, shadow| live == shadow)
    }

    fn first_beyond(&self, absolute: f64, relative: f64) -> Option<Difference> {
        let of = self.data_type;
        self.first("beyond the tolerance", |live, shadow| {
            let integers = (integer(of, live), integer(of, shadow));
            let (error, scale) = match (integers, float(of, live), float(of, shadow)) {
                ((Some(live), Some(shadow)), ..) => ((live - shadow).abs() as f64, live.abs() as f64),
                (_, Some(live), Some(shadow)) if live == shadow => return true,
                // Beside an infinity everything is near, relatively.
                (_, Some(live), Some(shadow)) if live.is_finite() => ((live - shadow).abs(), live.abs()),
                (_, Some(_), Some(_)) => return false,
                _ => return live == shadow,
            };
            error <= absolute.max(relative * scale)
        })
    }

    /// Numbers are compared as such: `0.0` is `-0.0`, NaN is nothing.
    fn first_other_value(&self) -> Option<Difference> {
        let of = self.data_type;
        self.first("another value", |live, shadow| match (float(of, live), float(of, shadow)) {
            (Some(live), Some(shadow)) => live == shadow,
            _ => live == shadow,
        })
    }

    fn first_other_top(&self, row: usize) -> Option<Difference> {
        if matches!(self.data_type, DataType::Bool | DataType::Bytes) {
            return self.first_other_value();
        }
        for range in self.rows(row) {
            match (self.top(&self.live, &range), self.top(&self.shadow, &range)) {
                (Some(live), Some(shadow)) if live == shadow => {}
                (Some(live), Some(_)) => {
                    return Some(self.at(range.start + live, "another place is the greatest"));
                }
                _ => return Some(self.at(range.start, "a row with a NaN")),
            }
        }
        None
    }

    /// The first place of the greatest; `None`: there is a NaN.
    fn top(&self, elements: &Elements<'_>, row: &Range<usize>) -> Option<usize> {
        if let Some(numbers) = self.numbers(elements, row) {
            return first_greatest(&numbers);
        }
        let integer = |index| integer(self.data_type, elements.get(index)?);
        first_greatest(&row.clone().map(integer).collect::<Option<Vec<i128>>>()?)
    }

    fn first_distant(&self, row: usize, max: f64) -> Option<Difference> {
        if !matches!(self.data_type, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64) {
            return self.first_other_value();
        }
        for range in self.rows(row) {
            let (Some(live), Some(shadow)) =
                (self.distribution(&self.live, &range), self.distribution(&self.shadow, &range))
            else {
                return Some(self.at(range.start, "a row that is no distribution"));
            };
            let apart: Vec<f64> =
                live.iter().zip(&shadow).map(|(live, shadow)| (live - shadow).abs()).collect();
            if apart.iter().sum::<f64>() / 2.0 > max + DISTANCE_ROUNDING {
                let largest = first_greatest(&apart).unwrap_or(0);
                return Some(self.at(range.start + largest, "the distributions are too far apart"));
            }
        }
        None
    }

    fn distribution(&self, elements: &Elements<'_>, row: &Range<usize>) -> Option<Vec<f64>> {
        let numbers = self.numbers(elements, row)?;
        let sum: f64 = numbers.iter().sum();
        let is_one = numbers.iter().all(|number| *number >= 0.0) && (sum - 1.0).abs() <= SUM_TOLERANCE;
        is_one.then_some(numbers)
    }

    fn numbers(&self, elements: &Elements<'_>, row: &Range<usize>) -> Option<Vec<f64>> {
        row.clone().map(|index| float(self.data_type, elements.get(index)?)).collect()
    }

    /// Which elements each row has.
    fn rows(&self, row: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let row = row.max(1);
        (0..self.live.len() / row).map(move |index| index * row..(index + 1) * row)
    }
}

/// `None`: something in it cannot be compared, or it is empty.
fn first_greatest<T: PartialOrd>(row: &[T]) -> Option<usize> {
    let mut greatest = 0;
    for (index, value) in row.iter().enumerate() {
        match value.partial_cmp(&row[greatest]) {
            None => return None,
            Some(std::cmp::Ordering::Greater) => greatest = index,
            Some(_) => {}
        }
    }
    (!row.is_empty()).then_some(greatest)
}

#[cfg(test)]
mod tests;
