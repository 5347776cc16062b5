//! Triton's classification extension: in the place of an output's scores, its
//! best ones as text, `value:index`, best first.

use std::cmp::Ordering;

use bytes::Bytes;
use half::{bf16, f16};
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::model_infer_response::InferOutputTensor;
use starling_proto::inference::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

use super::InferError;
use super::tensor::bytes_elements;

/// By which a requested output asks for it: how many classes.
pub const CLASSIFICATION: &str = "classification";

/// The outputs of one request whose best classes are wanted, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Classification {
    wanted: Vec<(String, usize)>,
}

/// How many classes a parameter asks for; the error says what it must be.
pub fn classes(output: &str, parameter: &InferParameter) -> Result<usize, InferError> {
    let number = match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => usize::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => usize::try_from(number).ok(),
        _ => None,
    };
    number.filter(|number| *number > 0).ok_or_else(|| {
        InferError::InvalidArgument(format!(
            "parameter '{CLASSIFICATION}' of output '{output}' must be a whole number of classes, 1 or more"
        ))
    })
}

impl Classification {
    /// What a request asks for.
    pub(super) fn of(request: &ModelInferRequest) -> Result<Self, InferError> {
        let mut wanted = Vec::new();
        for output in &request.outputs {
            if let Some(parameter) = output.parameters.get(CLASSIFICATION) {
                wanted.push((output.name.clone(), classes(&output.name, parameter)?));
            }
        }
        Ok(Self { wanted })
    }

    /// Replaces those outputs. `batched`: axis 0 is a batch, and each of its rows
    /// has classes of its own.
    pub(super) fn apply(&self, batched: bool, response: &mut ModelInferResponse) -> Result<(), InferError> {
        for (name, classes) in &self.wanted {
            let Some(index) = response.outputs.iter().position(|output| output.name == *name) else {
                continue;
            };
            let output = &mut response.outputs[index];
            let raw = response.raw_output_contents.get_mut(index);
            let scores = match &raw {
                Some(raw) => Scores::from_raw(&output.datatype, raw),
                None => Scores::from_typed(output),
            };
            let scores = scores.ok_or_else(|| {
                InferError::InvalidArgument(format!(
                    "output '{name}' is {}, classification needs numbers; ask for the tensor itself",
                    output.datatype
                ))
            })?;
            let rows = match output.shape.first() {
                Some(rows) if batched => usize::try_from(*rows).unwrap_or(0),
                _ => 1,
            };
            let per_row = scores.len().checked_div(rows).unwrap_or(0);
            let kept = per_row.min(*classes);
            let texts = scores.best(per_row, kept);
            output.datatype = "BYTES".to_owned();
            output.shape = if batched { vec![rows as i64, kept as i64] } else { vec![kept as i64] };
            match raw {
                Some(raw) => *raw = bytes_elements::join(texts.iter().map(String::as_bytes)).0,
                None => {
                    let bytes_contents = texts.into_iter().map(Bytes::from).collect();
                    output.contents = Some(InferTensorContents { bytes_contents, ..Default::default() });
                }
            }
        }
        Ok(())
    }
}

/// The elements of an output, wide enough to be exact.
enum Scores {
    Whole(Vec<i128>),
    Real(Vec<f64>),
}

impl Scores {
    fn from_raw(datatype: &str, raw: &[u8]) -> Option<Self> {
        Some(match datatype {
            "INT8" => Self::Whole(decode(raw, |bytes| i8::from_le_bytes(bytes).into())),
            "INT16" => Self::Whole(decode(raw, |bytes| i16::from_le_bytes(bytes).into())),
            "INT32" => Self::Whole(decode(raw, |bytes| i32::from_le_bytes(bytes).into())),
            "INT64" => Self::Whole(decode(raw, |bytes| i64::from_le_bytes(bytes).into())),
            "UINT8" => Self::Whole(decode(raw, |bytes| u8::from_le_bytes(bytes).into())),
            "UINT16" => Self::Whole(decode(raw, |bytes| u16::from_le_bytes(bytes).into())),
            "UINT32" => Self::Whole(decode(raw, |bytes| u32::from_le_bytes(bytes).into())),
            "UINT64" => Self::Whole(decode(raw, |bytes| u64::from_le_bytes(bytes).into())),
            "FP16" => Self::Real(decode(raw, |bytes| f16::from_le_bytes(bytes).to_f64())),
            "BF16" => Self::Real(decode(raw, |bytes| bf16::from_le_bytes(bytes).to_f64())),
            "FP32" => Self::Real(decode(raw, |bytes| f32::from_le_bytes(bytes).into())),
            "FP64" => Self::Real(decode(raw, f64::from_le_bytes)),
            _ => return None,
        })
    }

    fn from_typed(output: &InferOutputTensor) -> Option<Self> {
        let nothing = InferTensorContents::default();
        let contents = output.contents.as_ref().unwrap_or(&nothing);
        Some(match output.datatype.as_str() {
            "INT8" | "INT16" | "INT32" => Self::Whole(widened(&contents.int_contents)),
            "INT64" => Self::Whole(widened(&contents.int64_contents)),
            "UINT8" | "UINT16" | "UINT32" => Self::Whole(widened(&contents.uint_contents)),
            "UINT64" => Self::Whole(widened(&contents.uint64_contents)),
            "FP32" => Self::Real(contents.fp32_contents.iter().map(|value| f64::from(*value)).collect()),
            "FP64" => Self::Real(contents.fp64_contents.clone()),
            _ => return None,
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Real(values) => values.len(),
        }
    }

    fn best(&self, per_row: usize, kept: usize) -> Vec<String> {
        match self {
            Self::Whole(values) => best(values, per_row, kept, Ord::cmp, i128::to_string),
            // Six decimals, as Triton writes them. What is no number comes last.
            Self::Real(values) => best(
                values,
                per_row,
                kept,
                |left, right| (!left.is_nan()).cmp(&!right.is_nan()).then(left.total_cmp(right)),
                |value| format!("{value:.6}"),
            ),
        }
    }
}

fn decode<T, const N: usize>(raw: &[u8], from_le_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|bytes| from_le_bytes(*bytes)).collect()
}

fn widened<T: Copy + Into<i128>>(values: &[T]) -> Vec<i128> {
    values.iter().map(|value| (*value).into()).collect()
}

/// Of equal values the first one comes first.
fn best<T>(
    values: &[T],
    per_row: usize,
    kept: usize,
    order: impl Fn(&T, &T) -> Ordering,
    show: impl Fn(&T) -> String,
) -> Vec<String> {
    if kept == 0 {
        return Vec::new();
    }
    let mut texts = Vec::with_capacity(values.len() / per_row * kept);
    for row in values.chunks_exact(per_row) {
        let better = |left: &usize, right: &usize| order(&row[*right], &row[*left]).then(left.cmp(right));
        let mut indices: Vec<usize> = (0..row.len()).collect();
        if kept < row.len() {
            indices.select_nth_unstable_by(kept - 1, better);
            indices.truncate(kept);
        }
        indices.sort_unstable_by(better);
        texts.extend(indices.iter().map(|index| format!("{}:{index}", show(&row[*index]))));
    }
    texts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::inference::model_infer_request::InferRequestedOutputTensor;

    use super::*;

    fn request(choice: ParameterChoice) -> ModelInferRequest {
        let parameter = InferParameter { parameter_choice: Some(choice) };
        let output = InferRequestedOutputTensor {
            name: "y".into(),
            parameters: [(CLASSIFICATION.to_owned(), parameter)].into(),
        };
        ModelInferRequest { outputs: vec![output], ..Default::default() }
    }

    fn top(classes: i64) -> Classification {
        Classification::of(&request(ParameterChoice::Int64Param(classes))).unwrap()
    }

    fn raw_response(datatype: &str, shape: &[i64], raw: Vec<u8>) -> ModelInferResponse {
        let output = InferOutputTensor {
            name: "y".into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..Default::default()
        };
        ModelInferResponse {
            outputs: vec![output],
            raw_output_contents: vec![raw.into()],
            ..Default::default()
        }
    }

    fn fp32(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn texts(response: &ModelInferResponse) -> Vec<String> {
        let raw = &response.raw_output_contents[0];
        bytes_elements::split(raw).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_row_of_a_batch_has_its_best_classes() {
        let mut response = raw_response("FP32", &[2, 3], fp32(&[0.25, 0.5, 0.25, 0.125, 0.0, 0.875]));
        top(2).apply(true, &mut response).unwrap();
        assert_eq!(response.outputs[0].datatype, "BYTES");
        assert_eq!(response.outputs[0].shape, [2, 2]);
        assert_eq!(texts(&response), ["0.500000:1", "0.250000:0", "0.875000:2", "0.125000:0"]);
    }

    #[test]
    fn without_a_batch_axis_the_whole_tensor_is_one_row() {
        let mut response = raw_response("INT64", &[2, 2], [3_i64, 1, -7, 9].map(i64::to_le_bytes).concat());
        top(9).apply(false, &mut response).unwrap();
        assert_eq!(response.outputs[0].shape, [4]);
        assert_eq!(texts(&response), ["9:3", "3:0", "1:1", "-7:2"]);
    }

    #[test]
    fn what_is_no_number_comes_last() {
        let mut response = raw_response("FP32", &[3], fp32(&[f32::NAN, -1.0, f32::INFINITY]));
        top(3).apply(false, &mut response).unwrap();
        assert_eq!(texts(&response), ["inf:2", "-1.000000:1", "NaN:0"]);
    }

    #[test]
    fn typed_outputs_stay_typed() {
        let mut response = raw_response("FP64", &[1, 2], Vec::new());
        response.raw_output_contents.clear();
        let contents = InferTensorContents { fp64_contents: vec![0.0, 2.5], ..Default::default() };
        response.outputs[0].contents = Some(contents);
        top(1).apply(true, &mut response).unwrap();
        let contents = response.outputs[0].contents.as_ref().unwrap();
        assert_eq!(contents.bytes_contents, [Bytes::from("2.500000:1")]);
        assert!(contents.fp64_contents.is_empty());
    }

    #[test]
    fn an_empty_batch_has_no_classes() {
        let mut response = raw_response("FP32", &[0, 3], Vec::new());
        top(2).apply(true, &mut response).unwrap();
        assert_eq!((response.outputs[0].shape.as_slice(), texts(&response).len()), (&[0, 0][..], 0));
    }

    #[test]
    fn text_and_senseless_numbers_are_refused_by_name() {
        let mut response = raw_response("BYTES", &[1], vec![1, 0, 0, 0, b'a']);
        let error = top(1).apply(false, &mut response).unwrap_err();
        assert_eq!(
            error.to_string(),
            "output 'y' is BYTES, classification needs numbers; ask for the tensor itself"
        );
        for choice in [ParameterChoice::Int64Param(0), ParameterChoice::StringParam("3".into())] {
            let error = Classification::of(&request(choice)).unwrap_err();
            assert!(error.to_string().contains("parameter 'classification' of output 'y'"), "{error}");
        }
    }
}
