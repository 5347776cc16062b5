//! Whether an answer is the expected one, and where it differs most.

use bytes::Bytes;
use half::{bf16, f16};
use starling_proto::inference::ModelInferResponse;
use starling_raft::state::models::DataType;

use super::sample::{ExpectedOutput, GoldenSample};
use crate::inference::tensor::bytes_elements;
use crate::inference::tensor::data_type::element_bytes;

/// The text of an element is cut here in messages.
const SHOWN_BYTES_MAX: usize = 64;

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
    let (expected_elements, got_elements) = (elements(data_type, &expected.raw), elements(data_type, got));
    let mut differing = 0;
    let mut worst = None;
    for (index, (wanted, have)) in expected_elements.iter().zip(&got_elements).enumerate() {
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
    let (wanted, have) = (&expected_elements[index], &got_elements[index]);
    let error = match (number(data_type, wanted), number(data_type, have)) {
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
    let (Some(wanted), Some(have)) = (number(data_type, expected), number(data_type, got)) else {
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

fn elements(data_type: DataType, raw: &Bytes) -> Vec<Bytes> {
    match element_bytes(data_type) {
        None => bytes_elements::split(raw).collect(),
        Some(size) => {
            (0..raw.len() / size).map(|index| raw.slice(index * size..(index + 1) * size)).collect()
        }
    }
}

/// The value of a floating-point element.
fn number(data_type: DataType, element: &[u8]) -> Option<f64> {
    Some(match data_type {
        DataType::Fp16 => f16::from_le_bytes(element.try_into().ok()?).to_f64(),
        DataType::Bf16 => bf16::from_le_bytes(element.try_into().ok()?).to_f64(),
        DataType::Fp32 => f32::from_le_bytes(element.try_into().ok()?).into(),
        DataType::Fp64 => f64::from_le_bytes(element.try_into().ok()?),
        _ => return None,
    })
}

fn show(data_type: DataType, element: &[u8]) -> String {
    if data_type == DataType::Fp32
        && let Ok(bytes) = element.try_into()
    {
        return f32::from_le_bytes(bytes).to_string();
    }
    if let Some(number) = number(data_type, element) {
        return number.to_string();
    }
    match data_type {
        DataType::Bool => (element != [0]).to_string(),
        DataType::Bytes => {
            let shown = &element[..element.len().min(SHOWN_BYTES_MAX)];
            format!("{:?}", String::from_utf8_lossy(shown))
        }
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            let negative = element.last().is_some_and(|byte| *byte >= 0x80);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..element.len()].copy_from_slice(element);
            i64::from_le_bytes(wide).to_string()
        }
        _ => {
            let mut wide = [0; 8];
            wide[..element.len()].copy_from_slice(element);
            u64::from_le_bytes(wide).to_string()
        }
    }
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
