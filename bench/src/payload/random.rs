//! Inputs made up from a model's signature: the same ones for the same seed.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use starling_proto::inference::ModelInferRequest;
use starling_proto::inference::model_infer_request::InferInputTensor;

use crate::BenchError;
use crate::server::Signature;

/// Elements of one tensor at most.
const ELEMENTS_MAX: i64 = 1 << 28;
/// Whole numbers are below: small enough for an index or a class.
const WHOLE_NUMBERS: u8 = 10;
const TEXT_CHARACTERS: usize = 8;

/// How the free axes of a signature are filled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Rows: the first axis, where it is free.
    pub batch: i64,
    /// Whole shapes, batch axis included, by input; other free axes become 1.
    pub shapes: BTreeMap<String, Vec<i64>>,
}

/// A request of random values: numbers from 0 to 1, whole ones from 0 to 9, texts
/// of eight letters. Errors: a batch where there is no free axis, a shape that the
/// signature does not allow, a data type that nobody knows.
pub fn random_request(
    signature: &Signature,
    inputs: &Inputs,
    seed: u64,
) -> Result<ModelInferRequest, BenchError> {
    let shapes = inputs_of(signature, inputs)?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut request = ModelInferRequest {
        model_name: signature.model.clone(),
        model_version: signature.version.clone(),
        ..ModelInferRequest::default()
    };
    for (tensor, shape) in signature.inputs.iter().zip(shapes) {
        let elements = elements(&shape).ok_or_else(|| {
            BenchError::Asked(format!("input '{}' would have more than {ELEMENTS_MAX} elements", tensor.name))
        })?;
        let raw = random_bytes(&mut random, &tensor.datatype, elements).ok_or_else(|| {
            BenchError::Asked(format!("input '{}' is of unknown type {}", tensor.name, tensor.datatype))
        })?;
        request.inputs.push(InferInputTensor {
            name: tensor.name.clone(),
            datatype: tensor.datatype.clone(),
            shape,
            ..InferInputTensor::default()
        });
        request.raw_input_contents.push(Bytes::from(raw));
    }
    Ok(request)
}

/// The shape of each input of the signature, in its order.
pub fn inputs_of(signature: &Signature, inputs: &Inputs) -> Result<Vec<Vec<i64>>, BenchError> {
    let refuse = |reason: String| Err(BenchError::Asked(reason));
    let known = |name: &String| signature.inputs.iter().any(|input| input.name == *name);
    if let Some(name) = inputs.shapes.keys().find(|name| !known(name)) {
        let names: Vec<&str> = signature.inputs.iter().map(|input| input.name.as_str()).collect();
        return refuse(format!("the model has no input '{name}'; it has {}", names.join(", ")));
    }
    let mut shapes = Vec::new();
    for tensor in &signature.inputs {
        if let Some(shape) = inputs.shapes.get(&tensor.name) {
            let fits = shape.len() == tensor.shape.len()
                && shape.iter().zip(&tensor.shape).all(|(has, wanted)| *wanted == -1 || has == wanted);
            if !fits {
                return refuse(format!(
                    "input '{}' has shape {:?} in the signature; {shape:?} does not fit",
                    tensor.name, tensor.shape
                ));
            }
            shapes.push(shape.clone());
            continue;
        }
        if inputs.batch > 1 && tensor.shape.first() != Some(&-1) {
            return refuse(format!(
                "input '{}' has shape {:?}: no free first axis for a batch of {}",
                tensor.name, tensor.shape, inputs.batch
            ));
        }
        let filled = tensor.shape.iter().enumerate().map(|(axis, length)| match (axis, *length) {
            (0, -1) => inputs.batch.max(1),
            (_, -1) => 1,
            (_, length) => length,
        });
        shapes.push(filled.collect());
    }
    Ok(shapes)
}

fn elements(shape: &[i64]) -> Option<usize> {
    let product = shape.iter().try_fold(1_i64, |product, axis| product.checked_mul(*axis))?;
    (0..=ELEMENTS_MAX).contains(&product).then_some(product as usize)
}

fn random_bytes(random: &mut StdRng, datatype: &str, elements: usize) -> Option<Vec<u8>> {
    let whole = |random: &mut StdRng, bytes: usize| -> Vec<u8> {
        // Little-endian: the number, then zeros.
        (0..elements)
            .flat_map(|_| {
                let mut element = vec![0; bytes];
                element[0] = random.random_range(0..WHOLE_NUMBERS);
                element
            })
            .collect()
    };
    Some(match datatype {
        "BOOL" => (0..elements).map(|_| u8::from(random.random::<bool>())).collect(),
        "UINT8" | "INT8" => whole(random, 1),
        "UINT16" | "INT16" => whole(random, 2),
        "UINT32" | "INT32" => whole(random, 4),
        "UINT64" | "INT64" => whole(random, 8),
        "FP32" => (0..elements).flat_map(|_| random.random::<f32>().to_le_bytes()).collect(),
        "FP64" => (0..elements).flat_map(|_| random.random::<f64>().to_le_bytes()).collect(),
        "BF16" => (0..elements).flat_map(|_| bf16(random.random()).to_le_bytes()).collect(),
        "FP16" => (0..elements).flat_map(|_| fp16(random.random()).to_le_bytes()).collect(),
        "BYTES" => (0..elements).flat_map(|_| text(random)).collect(),
        _ => return None,
    })
}

/// The upper half of the single.
fn bf16(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// Of a number from 0 to 1; what is too small for a normal half becomes 0.
fn fp16(value: f32) -> u16 {
    const SINGLE_BIAS: u32 = 127;
    const HALF_BIAS: u32 = 15;
    let bits = value.to_bits();
    let exponent = (bits >> 23) & 0xff;
    if exponent <= SINGLE_BIAS - HALF_BIAS {
        return 0;
    }
    (((exponent - (SINGLE_BIAS - HALF_BIAS)) << 10) | ((bits >> 13) & 0x3ff)) as u16
}

fn text(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = (TEXT_CHARACTERS as u32).to_le_bytes().to_vec();
    bytes.extend((0..TEXT_CHARACTERS).map(|_| random.random_range(b'a'..=b'z')));
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::TensorSpec;

    fn signature(tensors: &[(&str, &str, &[i64])]) -> Signature {
        let inputs = tensors.iter().map(|(name, datatype, shape)| TensorSpec {
            name: (*name).to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
        });
        Signature { model: "m".into(), version: String::new(), inputs: inputs.collect() }
    }

    #[test]
    fn free_axes_become_the_batch_or_one() {
        let signature = signature(&[("x", "FP32", &[-1, 4]), ("t", "BYTES", &[-1, -1])]);
        let request = random_request(&signature, &Inputs { batch: 3, ..Inputs::default() }, 0).unwrap();
        let shapes: Vec<&[i64]> = request.inputs.iter().map(|input| &input.shape[..]).collect();
        assert_eq!(shapes, [&[3, 4][..], &[3, 1]]);
        let sizes: Vec<usize> = request.raw_input_contents.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [48, 36]);
    }

    #[test]
    fn every_datatype_has_as_many_bytes_as_its_elements() {
        let sizes = [
            ("BOOL", 1),
            ("UINT8", 1),
            ("UINT16", 2),
            ("UINT32", 4),
            ("UINT64", 8),
            ("INT8", 1),
            ("INT16", 2),
            ("INT32", 4),
            ("INT64", 8),
            ("FP16", 2),
            ("BF16", 2),
            ("FP32", 4),
            ("FP64", 8),
            ("BYTES", 12),
        ];
        for (datatype, size) in sizes {
            let request =
                random_request(&signature(&[("x", datatype, &[5])]), &Inputs::default(), 0).unwrap();
            assert_eq!(request.raw_input_contents[0].len(), 5 * size, "{datatype}");
        }
    }

    #[test]
    fn halves_of_known_numbers_are_right() {
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(fp16), [0, 0x3800, 0x3a00, 0x3c00]);
        assert_eq!([0.0, 0.5, 1.0].map(bf16), [0, 0x3f00, 0x3f80]);
    }

    #[test]
    fn the_same_seed_makes_the_same_request_and_another_one_another() {
        let signature = signature(&[("x", "FP32", &[-1, 4])]);
        let of_seed = |seed| random_request(&signature, &Inputs::default(), seed).unwrap();
        assert_eq!(of_seed(1), of_seed(1));
        assert_ne!(of_seed(1), of_seed(2));
    }

    #[test]
    fn what_the_signature_does_not_allow_is_named() {
        let signature = signature(&[("x", "FP32", &[1, 4])]);
        let reason = |inputs: Inputs| random_request(&signature, &inputs, 0).unwrap_err().to_string();
        let batch = Inputs { batch: 2, ..Inputs::default() };
        assert_eq!(reason(batch), "input 'x' has shape [1, 4]: no free first axis for a batch of 2");
        let shape = |name: &str, shape: &[i64]| Inputs {
            shapes: BTreeMap::from([(name.to_owned(), shape.to_vec())]),
            ..Inputs::default()
        };
        assert_eq!(reason(shape("y", &[1])), "the model has no input 'y'; it has x");
        assert!(reason(shape("x", &[2, 4])).contains("does not fit"));
    }
}
