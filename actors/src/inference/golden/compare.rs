//! Whether an answer is the expected one, and where it differs most.

use bytes::Bytes;
use starling_proto::inference::ModelInferResponse;
use starling_raft::state::models::DataType;

use super::sample::{ExpectedOutput, GoldenSample};
use crate::inference::tensor::elements::{Elements, float, show};

/// How an answer differs.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Difference {
    #[error("output '{0}' is not in the answer")]
    Missing(String),
    #[error("output '{output}' is {got_type} {got:?}, expected {expected_type} {expected:?}")]
    Form { output: String, expected_type: &'static str, expected: Vec<i64>, got_type: String, got: Vec<i64> },
    #[error("output '{output}' differs in {differing} of {elements} elements, most at {at:?}: {numbers}")]
    Elements {
        output: String,
        differing: usize,
        elements: usize,
        at: Vec<i64>,
        /// What was expected there and what came; of floating-point numbers also
        /// the error and what is allowed.
        numbers: String,
    },
}

/// Compares every output that the sample expects. The answer is raw.
pub(super) fn compare(sample: &GoldenSample, answer: &ModelInferResponse) -> Result<(), Difference> {
    for expected in &sample.expected {
        let found = answer.outputs.iter().zip(&answer.raw_output_contents);
        let (output, raw) = found
            .into_iter()
            .find(|(output, _)| output.name == expected.name)
            .ok_or_else(|| Difference::Missing(expected.name.clone()))?;
        if output.datatype != expected.data_type.name() || output.shape != expected.shape {
            return Err(Difference::Form {
                output: expected.name.clone(),
                expected_type: expected.data_type.name(),
                expected: expected.shape.clone(),
                got_type: output.datatype.clone(),
                got: output.shape.clone(),
            });
        }
        compare_elements(sample, expected, raw)?;
    }
    Ok(())
}

fn compare_elements(sample: &GoldenSample, expected: &ExpectedOutput, got: &Bytes) -> Result<(), Difference> {
    let data_type = expected.data_type;
    let (expected_elements, got_elements) =
        (Elements::of(data_type, &expected.raw), Elements::of(data_type, got));
    let mut differing = 0;
    let mut worst = None;
    for (index, (wanted, have)) in expected_elements.iter().zip(got_elements.iter()).enumerate() {
        let error = excess(data_type, wanted, have, sample);
        if error.is_none() {
            continue;
        }
        differing += 1;
        if worst.is_none_or(|(_, largest)| error > largest) {
            worst = Some((index, error));
        }
    }
    let Some((index, _)) = worst else { return Ok(()) };
    let (wanted, have) =
        (expected_elements.get(index).unwrap_or_default(), got_elements.get(index).unwrap_or_default());
    let error = match (float(data_type, wanted), float(data_type, have)) {
        (Some(wanted), Some(have)) => {
            format!(
                ", an error of {:e}; allowed are rtol {:e} and atol {:e}",
                (wanted - have).abs(),
                sample.rtol,
                sample.atol
            )
        }
        _ => String::new(),
    };
    Err(Difference::Elements {
        output: expected.name.clone(),
        differing,
        elements: expected_elements.len(),
        at: place(&expected.shape, index),
        numbers: format!("expected {}, got {}{error}", show(data_type, wanted), show(data_type, have)),
    })
}

/// By how much an element is beyond what is allowed; `None`: it is not.
fn excess(data_type: DataType, expected: &[u8], got: &[u8], sample: &GoldenSample) -> Option<f64> {
    if expected == got {
        return None;
    }
    let (Some(wanted), Some(have)) = (float(data_type, expected), float(data_type, got)) else {
        return Some(f64::INFINITY);
    };
    if wanted == have || (wanted.is_nan() && have.is_nan()) {
        return None;
    }
    let difference = (wanted - have).abs();
    if difference.is_nan() {
        return Some(f64::INFINITY);
    }
    let excess = difference - (sample.atol + sample.rtol * wanted.abs());
    (excess > 0.0 || wanted.is_infinite()).then_some(difference)
}

/// Row-major.
fn place(shape: &[i64], index: usize) -> Vec<i64> {
    let mut rest = index as i64;
    let mut place: Vec<i64> = shape
        .iter()
        .rev()
        .map(|length| {
            let at = rest % length.max(&1);
            rest /= length.max(&1);
            at
        })
        .collect();
    place.reverse();
    place
}
