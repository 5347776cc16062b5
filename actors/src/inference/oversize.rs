//! A request of more rows than a run may have: cut into parts by rows, and the
//! answers to them put together again. Pure.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use starling_proto::inference::{InferTensorContents, ModelInferResponse};
use starling_raft::state::Signature;
use starling_raft::state::models::DataType;

use super::tensor::bytes_elements;
use super::tensor::check::{CheckedInput, CheckedRequest, InputData};

/// A request on the way to its parts.
pub(crate) struct Oversize<'a> {
    request: &'a CheckedRequest,
    /// Per input: where each row begins, in bytes, if its rows differ in length.
    row_starts: Vec<Option<Vec<usize>>>,
}

impl<'a> Oversize<'a> {
    /// `request` must be concatenable: axis 0 of every input has its rows.
    pub(crate) fn new(request: &'a CheckedRequest, signature: &Signature) -> Self {
        let starts = |(input, data_type): (&CheckedInput, DataType)| match &input.data {
            InputData::Raw(raw) if data_type == DataType::Bytes => {
                Some(row_starts(raw, input.elements / request.rows.max(1)))
            }
            _ => None,
        };
        let data_types = signature.inputs.iter().map(|spec| spec.data_type);
        Self { request, row_starts: request.inputs.iter().zip(data_types).map(starts).collect() }
    }

    /// The parts, in order; all but the last have `max_rows` rows.
    pub(crate) fn parts(&self, max_rows: usize) -> impl Iterator<Item = CheckedRequest> + '_ {
        let max_rows = max_rows.max(1);
        let rows = self.request.rows;
        (0..rows).step_by(max_rows).map(move |start| self.part(start..(start + max_rows).min(rows)))
    }

    fn part(&self, rows: Range<usize>) -> CheckedRequest {
        let whole = self.request;
        let cut = |(input, starts): (&CheckedInput, &Option<Vec<usize>>)| {
            if input.is_absent() {
                return CheckedInput::absent();
            }
            let elements_per_row = input.elements / whole.rows;
            let mut shape = input.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = rows.len() as i64;
            }
            let data = match (&input.data, starts) {
                (InputData::Raw(raw), None) => {
                    let row_bytes = raw.len() / whole.rows;
                    InputData::Raw(raw.slice(rows.start * row_bytes..rows.end * row_bytes))
                }
                (InputData::Raw(raw), Some(starts)) => {
                    InputData::Raw(raw.slice(starts[rows.start]..starts[rows.end]))
                }
                (InputData::Absent, _) => InputData::Absent,
                (InputData::Typed(contents), _) => {
                    let elements = rows.start * elements_per_row..rows.end * elements_per_row;
                    InputData::Typed(cut_typed(contents, &elements))
                }
            };
            CheckedInput { shape, elements: rows.len() * elements_per_row, data }
        };
        CheckedRequest {
            id: whole.id.clone(),
            inputs: whole.inputs.iter().zip(&self.row_starts).map(cut).collect(),
            rows: rows.len(),
            wanted: whole.wanted.clone(),
            ..*whole
        }
    }
}

/// Where each row begins, and where the last one ends.
fn row_starts(raw: &Bytes, elements_per_row: usize) -> Vec<usize> {
    let mut starts = vec![0];
    let mut end = 0;
    for (index, element) in bytes_elements::split(raw).enumerate() {
        end += bytes_elements::LENGTH_BYTES + element.len();
        if (index + 1).is_multiple_of(elements_per_row.max(1)) {
            starts.push(end);
        }
    }
    starts
}

/// One field is filled; the others stay empty.
fn cut_typed(contents: &InferTensorContents, elements: &Range<usize>) -> InferTensorContents {
    fn cut<T: Clone>(values: &[T], elements: &Range<usize>) -> Vec<T> {
        values.get(elements.clone()).map(<[T]>::to_vec).unwrap_or_default()
    }
    InferTensorContents {
        bool_contents: cut(&contents.bool_contents, elements),
        int_contents: cut(&contents.int_contents, elements),
        int64_contents: cut(&contents.int64_contents, elements),
        uint_contents: cut(&contents.uint_contents, elements),
        uint64_contents: cut(&contents.uint64_contents, elements),
        fp32_contents: cut(&contents.fp32_contents, elements),
        fp64_contents: cut(&contents.fp64_contents, elements),
        bytes_contents: cut(&contents.bytes_contents, elements),
    }
}

/// Puts the answers to the parts together, in order, by rows. The error names the
/// output that does not have the rows of its part.
pub(crate) fn join(
    parts: Vec<ModelInferResponse>,
    part_rows: &[usize],
) -> Result<ModelInferResponse, String> {
    for (part, rows) in parts.iter().zip(part_rows) {
        if let Some(output) = part.outputs.iter().find(|output| output.shape.first() != Some(&(*rows as i64)))
        {
            return Err(format!(
                "output '{}' has shape {:?} for a part of {rows} rows, so the parts of the request cannot be put together",
                output.name, output.shape
            ));
        }
    }
    let raw_contents = join_raw(&parts);
    let mut parts = parts.into_iter();
    let mut whole = parts.next().unwrap_or_default();
    for part in parts {
        for (output, more) in whole.outputs.iter_mut().zip(part.outputs) {
            if output.shape.get(1..) != more.shape.get(1..) {
                return Err(format!(
                    "output '{}' has shape {:?} for one part and {:?} for another, so the parts of the request cannot be put together",
                    output.name, output.shape, more.shape
                ));
            }
            output.shape[0] += more.shape[0];
            if let (Some(contents), Some(more)) = (&mut output.contents, more.contents) {
                append_typed(contents, more);
            }
        }
    }
    whole.raw_output_contents = raw_contents;
    Ok(whole)
}

fn join_raw(parts: &[ModelInferResponse]) -> Vec<Bytes> {
    let outputs = parts.first().map_or(0, |first| first.raw_output_contents.len());
    let joined = |output: usize| {
        let of_parts = || parts.iter().filter_map(move |part| part.raw_output_contents.get(output));
        let mut joined = BytesMut::with_capacity(of_parts().map(Bytes::len).sum());
        of_parts().for_each(|raw| joined.extend_from_slice(raw));
        joined.freeze()
    };
    (0..outputs).map(joined).collect()
}

fn append_typed(contents: &mut InferTensorContents, more: InferTensorContents) {
    contents.bool_contents.extend(more.bool_contents);
    contents.int_contents.extend(more.int_contents);
    contents.int64_contents.extend(more.int64_contents);
    contents.uint_contents.extend(more.uint_contents);
    contents.uint64_contents.extend(more.uint64_contents);
    contents.fp32_contents.extend(more.fp32_contents);
    contents.fp64_contents.extend(more.fp64_contents);
    contents.bytes_contents.extend(more.bytes_contents);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;
    use starling_proto::inference::model_infer_response::InferOutputTensor;
    use starling_raft::state::models::TensorSpec;

    use super::*;

    fn signature(data_type: DataType) -> Signature {
        let spec = TensorSpec { name: "x".into(), data_type, shape: vec![-1, 2], optional: false };
        Signature { inputs: vec![spec.clone()], outputs: vec![spec], batchable: true }
    }

    fn request(rows: usize, data: InputData) -> CheckedRequest {
        let raw = matches!(data, InputData::Raw(_));
        let input = CheckedInput { shape: vec![rows as i64, 2], elements: rows * 2, data };
        let inputs = vec![input];
        CheckedRequest { id: "7".into(), inputs, rows, concatenable: true, raw, wanted: Some(vec![0]) }
    }

    /// What a model would answer that gives back what it gets.
    fn echo(part: CheckedRequest) -> ModelInferResponse {
        let input = part.inputs.into_iter().next().unwrap();
        let output =
            InferOutputTensor { name: "y".into(), shape: input.shape, ..InferOutputTensor::default() };
        match input.data {
            InputData::Raw(raw) => ModelInferResponse {
                id: part.id,
                outputs: vec![output],
                raw_output_contents: vec![raw],
                ..ModelInferResponse::default()
            },
            InputData::Typed(contents) => ModelInferResponse {
                id: part.id,
                outputs: vec![InferOutputTensor { contents: Some(contents), ..output }],
                ..ModelInferResponse::default()
            },
            InputData::Absent => panic!("nothing was left out"),
        }
    }

    fn there_and_back(request: &CheckedRequest, data_type: DataType, max_rows: usize) -> ModelInferResponse {
        let signature = signature(data_type);
        let parts: Vec<CheckedRequest> = Oversize::new(request, &signature).parts(max_rows).collect();
        let rows: Vec<usize> = parts.iter().map(|part| part.rows).collect();
        assert!(rows.iter().all(|rows| (1..=max_rows).contains(rows)), "{rows:?}");
        join(parts.into_iter().map(echo).collect(), &rows).unwrap()
    }

    #[test]
    fn parts_are_full_but_for_the_last_and_keep_what_was_asked_for() {
        let raw = InputData::Raw(vec![0; 7 * 2 * 4].into());
        let whole = request(7, raw);
        let signature = signature(DataType::Fp32);
        let parts: Vec<CheckedRequest> = Oversize::new(&whole, &signature).parts(3).collect();
        assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(parts[2].inputs[0].shape, [1, 2]);
        assert_eq!(parts[2].inputs[0].elements, 2);
        assert_eq!((parts[1].id.as_str(), &parts[1].wanted, parts[1].raw), ("7", &Some(vec![0]), true));
    }

    #[test]
    fn an_output_without_the_rows_of_its_part_is_named() {
        let answer = |shape: &[i64]| ModelInferResponse {
            outputs: vec![InferOutputTensor {
                name: "mean".into(),
                shape: shape.to_vec(),
                ..Default::default()
            }],
            ..ModelInferResponse::default()
        };
        let error = join(vec![answer(&[3, 2]), answer(&[1, 2])], &[3, 2]).unwrap_err();
        assert!(error.contains("'mean'") && error.contains("[1, 2]") && error.contains("2 rows"), "{error}");
        let error = join(vec![answer(&[3, 2]), answer(&[2, 9])], &[3, 2]).unwrap_err();
        assert!(error.contains("[3, 2]") && error.contains("[2, 9]"), "{error}");
    }

    proptest! {
        #[test]
        fn raw_numbers_come_back_as_they_were(rows in 1_usize..40, max_rows in 1_usize..12, seed in any::<u8>()) {
            let bytes: Vec<u8> = (0..rows * 8).map(|index| seed.wrapping_add(index as u8)).collect();
            let whole = request(rows, InputData::Raw(bytes.clone().into()));
            let answer = there_and_back(&whole, DataType::Fp32, max_rows);
            prop_assert_eq!(&answer.outputs[0].shape, &[rows as i64, 2]);
            prop_assert_eq!(&answer.raw_output_contents[0][..], &bytes[..]);
        }

        #[test]
        fn raw_texts_come_back_as_they_were(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 2..60),
            max_rows in 1_usize..12,
        ) {
            let rows = texts.len() / 2;
            let (raw, _) = bytes_elements::join(texts[..rows * 2].iter().map(Vec::as_slice));
            let whole = request(rows, InputData::Raw(raw.clone()));
            let answer = there_and_back(&whole, DataType::Bytes, max_rows);
            prop_assert_eq!(&answer.raw_output_contents[0], &raw);
        }

        #[test]
        fn typed_numbers_come_back_as_they_were(numbers in prop::collection::vec(any::<i64>(), 2..60), max_rows in 1_usize..12) {
            let rows = numbers.len() / 2;
            let numbers = numbers[..rows * 2].to_vec();
            let contents = InferTensorContents { int64_contents: numbers.clone(), ..Default::default() };
            let whole = request(rows, InputData::Typed(contents));
            let answer = there_and_back(&whole, DataType::Int64, max_rows);
            prop_assert_eq!(&answer.outputs[0].contents.as_ref().unwrap().int64_contents, &numbers);
            prop_assert!(answer.raw_output_contents.is_empty());
        }
    }
}
