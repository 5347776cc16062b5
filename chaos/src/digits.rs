//! The held-back images of models/digits, as requests.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::ModelInferResponse;
use starling_proto::inference::infer_parameter::ParameterChoice;
use starling_proto::inference::model_infer_request::InferInputTensor;

/// The model's name in every scenario.
pub const MODEL: &str = "digits";

const PIXELS: usize = 64;
const RECORD_BYTES: usize = PIXELS + 1;

/// One image and what it shows.
#[derive(Debug, Clone)]
pub struct Digit {
    /// Little-endian FP32 `[1,64]`.
    pixels: Bytes,
    /// 0 to 9.
    pub label: u8,
}

impl Digit {
    /// Asks the route for a prediction.
    pub fn request(&self) -> ModelInferRequest {
        let input = InferInputTensor {
            name: "pixels".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, PIXELS as i64],
            ..InferInputTensor::default()
        };
        ModelInferRequest {
            model_name: MODEL.to_owned(),
            inputs: vec![input],
            raw_input_contents: vec![self.pixels.clone()],
            ..ModelInferRequest::default()
        }
    }
}

/// Reads held_back.bin: records of 64 pixels (0 to 16) and a label.
pub fn read(folder: &Path) -> Result<Vec<Digit>> {
    let path = folder.join("held_back.bin");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.is_empty() || bytes.len() % RECORD_BYTES != 0 {
        bail!(
            "{} has {} bytes, which is no number of {RECORD_BYTES}-byte records",
            path.display(),
            bytes.len()
        );
    }
    let digits = bytes.chunks_exact(RECORD_BYTES).map(|record| {
        let mut pixels = BytesMut::with_capacity(PIXELS * 4);
        for pixel in &record[..PIXELS] {
            pixels.put_f32_le(f32::from(*pixel));
        }
        Digit { pixels: pixels.freeze(), label: record[PIXELS] }
    });
    Ok(digits.collect())
}

/// What a prediction says about itself and the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prediction {
    /// The label that the model gave.
    pub label: i64,
    /// The version that served it.
    pub version: String,
    /// The epoch that routed it.
    pub epoch: u64,
    /// The node that ran it.
    pub node: String,
    /// The decision's id, by which it can be rewarded.
    pub decision: String,
    /// The rollout that it was part of; empty: of none.
    pub rollout: String,
}

impl Prediction {
    /// Reads an answer, or says what it lacks.
    pub fn read(response: &ModelInferResponse) -> Result<Self> {
        let position = response
            .outputs
            .iter()
            .position(|output| output.name == "output_label")
            .context("the answer has no output_label")?;
        let label = match response.raw_output_contents.get(position) {
            Some(raw) => {
                i64::from_le_bytes(raw.as_ref().try_into().context("output_label is not one INT64")?)
            }
            None => *response.outputs[position]
                .contents
                .as_ref()
                .and_then(|contents| contents.int64_contents.first())
                .context("output_label is empty")?,
        };
        Ok(Self {
            label,
            version: parameter(response, "starling_version")?,
            epoch: parameter(response, "starling_epoch")?.parse().context("starling_epoch is no number")?,
            node: parameter(response, "starling_node")?,
            decision: parameter(response, "starling_decision")?,
            rollout: parameter(response, "starling_rollout").unwrap_or_default(),
        })
    }
}

/// A response parameter as text.
fn parameter(response: &ModelInferResponse, name: &str) -> Result<String> {
    let choice = response.parameters.get(name).and_then(|parameter| parameter.parameter_choice.as_ref());
    match choice.with_context(|| format!("the answer has no parameter {name}"))? {
        ParameterChoice::StringParam(text) => Ok(text.clone()),
        ParameterChoice::Int64Param(number) => Ok(number.to_string()),
        ParameterChoice::Uint64Param(number) => Ok(number.to_string()),
        ParameterChoice::BoolParam(flag) => Ok(flag.to_string()),
        ParameterChoice::DoubleParam(number) => Ok(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_held_back_images_are_450_digits_of_64_floats() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits");
        let digits = read(&folder).unwrap();
        assert_eq!(digits.len(), 450);
        assert!(digits.iter().all(|digit| digit.label < 10));
        assert_eq!(digits[0].request().raw_input_contents[0].len(), 256);
    }
}
