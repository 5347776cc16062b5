#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use half::{bf16, f16};
use proptest::prelude::*;
use starling_proto::inference::InferTensorContents;
use starling_proto::inference::model_infer_response::InferOutputTensor;
use starling_raft::state::PartsPerMillion;

use super::*;

fn answer(outputs: &[(&str, &str, &[i64], Vec<u8>)]) -> ModelInferResponse {
    let tensor = |(name, datatype, shape, _): &(&str, &str, &[i64], Vec<u8>)| InferOutputTensor {
        name: (*name).to_owned(),
        datatype: (*datatype).to_owned(),
        shape: shape.to_vec(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        outputs: outputs.iter().map(tensor).collect(),
        raw_output_contents: outputs.iter().map(|(.., raw)| raw.clone().into()).collect(),
        ..ModelInferResponse::default()
    }
}

fn others(others: Agreement) -> Comparison {
    Comparison { outputs: Vec::new(), others }
}

fn tolerance(absolute: f64, relative: f64) -> Agreement {
    let nano = |number: f64| (number * 1e9).round() as u64;
    Agreement::Tolerance { absolute_nano: nano(absolute), relative_nano: nano(relative) }
}

fn distance(max_ppm: u32) -> Agreement {
    Agreement::Distance { max: PartsPerMillion::new(max_ppm).unwrap() }
}

fn fp32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn int64(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Of one output, by this rule.
fn difference_of(
    datatype: &str,
    shape: &[i64],
    live: Vec<u8>,
    shadow: Vec<u8>,
    rule: Agreement,
) -> Option<Difference> {
    let verdicts = compare(
        &answer(&[("y", datatype, shape, live)]),
        &answer(&[("y", datatype, shape, shadow)]),
        &others(rule),
    );
    assert_eq!(verdicts.len(), 1);
    verdicts.into_iter().next().unwrap().difference
}

/// Of FP32 numbers: the index of the first difference.
fn first_difference(shape: &[i64], live: &[f32], shadow: &[f32], rule: Agreement) -> Option<usize> {
    let difference = difference_of("FP32", shape, fp32(live), fp32(shadow), rule)?;
    Some(difference.place().expect("type and shape are equal").0)
}

#[test]
fn exact_wants_the_same_bytes() {
    let exact = Agreement::Exact;
    assert_eq!(first_difference(&[2], &[1.0, 2.0], &[1.0, 2.0], exact), None);
    assert_eq!(first_difference(&[2], &[1.0, 2.0], &[1.0, 2.000_000_2], exact), Some(1));
    assert_eq!(first_difference(&[1], &[0.0], &[-0.0], exact), Some(0));
    assert_eq!(first_difference(&[1], &[f32::NAN], &[f32::NAN], exact), None, "the same bits");
    assert_eq!(first_difference(&[0], &[], &[], exact), None);
    let texts = |second: &[u8]| [&[1, 0, 0, 0, b'a', 1, 0, 0, 0], second].concat();
    assert_eq!(difference_of("BYTES", &[2], texts(b"b"), texts(b"b"), exact), None);
    assert_eq!(
        difference_of("BYTES", &[2], texts(b"b"), texts(b"c"), exact).unwrap().to_string(),
        "at element 1 it is \"b\" live and \"c\" in the shadow (other bytes)"
    );
}

#[test]
fn another_type_or_shape_or_set_of_outputs_never_agrees() {
    let live = answer(&[("a", "FP32", &[1], fp32(&[1.0])), ("b", "INT64", &[1], int64(&[1]))]);
    let differences = |shadow: &ModelInferResponse| -> Vec<(String, Option<String>)> {
        let verdicts = compare(&live, shadow, &others(tolerance(10.0, 10.0)));
        let text = |verdict: OutputVerdict| (verdict.output, verdict.difference.map(|why| why.to_string()));
        verdicts.into_iter().map(text).collect()
    };
    let agrees = |output: &str| (output.to_owned(), None);
    let differs = |output: &str, why: &str| (output.to_owned(), Some(why.to_owned()));
    assert_eq!(
        differences(&answer(&[("a", "FP64", &[1], vec![0; 8]), ("b", "INT64", &[1, 1], int64(&[1]))])),
        [
            differs("a", "the type is FP32 live and FP64 in the shadow"),
            differs("b", "the shape is [1] live and [1, 1] in the shadow"),
        ]
    );
    assert_eq!(
        differences(&answer(&[("c", "FP32", &[1], fp32(&[1.0])), ("a", "FP32", &[1], fp32(&[1.0]))])),
        [agrees("a"), differs("b", "the shadow does not give it"), differs("c", "only the shadow gives it"),]
    );
    assert_eq!(
        differences(&answer(&[("b", "INT64", &[1], int64(&[1])), ("a", "FP32", &[1], vec![0; 3])])),
        [differs("a", "the contents do not fit their type and shape"), agrees("b")]
    );
}

#[test]
fn a_tolerance_is_absolute_or_relative_to_the_live_number() {
    let either = tolerance(0.5, 0.1);
    assert_eq!(first_difference(&[2], &[1.0, 100.0], &[1.5, 110.0], either), None);
    assert_eq!(first_difference(&[2], &[1.0, 100.0], &[1.6, 110.0], either), Some(0));
    assert_eq!(first_difference(&[2], &[1.0, 100.0], &[1.0, 89.0], either), Some(1));
    assert_eq!(first_difference(&[1], &[0.0], &[-0.0], tolerance(0.0, 0.0)), None);
    assert_eq!(first_difference(&[1], &[-100.0], &[-91.0], either), None, "relative to its size");
}

#[test]
fn nan_is_near_nothing_and_infinity_only_to_itself() {
    let wide = tolerance(1e9, 1.0);
    assert_eq!(first_difference(&[1], &[f32::NAN], &[f32::NAN], wide), Some(0));
    assert_eq!(first_difference(&[1], &[1.0], &[f32::NAN], wide), Some(0));
    assert_eq!(first_difference(&[1], &[f32::INFINITY], &[f32::INFINITY], wide), None);
    assert_eq!(first_difference(&[1], &[f32::INFINITY], &[f32::NEG_INFINITY], wide), Some(0));
    assert_eq!(first_difference(&[1], &[f32::INFINITY], &[1.0], wide), Some(0));
    assert_eq!(first_difference(&[1], &[1.0], &[f32::INFINITY], wide), Some(0));
}

#[test]
fn every_numeric_type_is_held_against_the_tolerance() {
    let one = tolerance(1.0, 0.0);
    /// Type, the live bytes, bytes that are near, bytes that are not.
    type Case<'a> = (&'a str, Vec<u8>, Vec<u8>, Vec<u8>);
    let cases: &[Case<'_>] = &[
        ("INT8", vec![0xff], vec![0], vec![1]),
        ("UINT8", vec![254], vec![255], vec![0]),
        ("INT16", (-300_i16).to_le_bytes().into(), (-301_i16).to_le_bytes().into(), vec![0, 0]),
        ("UINT16", vec![0, 1], vec![1, 1], vec![2, 1]),
        ("INT32", 7_i32.to_le_bytes().into(), 8_i32.to_le_bytes().into(), 9_i32.to_le_bytes().into()),
        ("UINT32", u32::MAX.to_le_bytes().into(), (u32::MAX - 1).to_le_bytes().into(), vec![0; 4]),
        // Numbers that a double cannot tell apart.
        (
            "INT64",
            9_007_199_254_740_993_i64.to_le_bytes().into(),
            9_007_199_254_740_994_i64.to_le_bytes().into(),
            9_007_199_254_740_995_i64.to_le_bytes().into(),
        ),
        ("UINT64", u64::MAX.to_le_bytes().into(), (u64::MAX - 1).to_le_bytes().into(), vec![0; 8]),
        (
            "FP16",
            f16::from_f32(1.0).to_le_bytes().into(),
            f16::from_f32(2.0).to_le_bytes().into(),
            f16::from_f32(2.5).to_le_bytes().into(),
        ),
        (
            "BF16",
            bf16::from_f32(1.0).to_le_bytes().into(),
            bf16::from_f32(2.0).to_le_bytes().into(),
            bf16::from_f32(2.5).to_le_bytes().into(),
        ),
        ("FP64", 1.0_f64.to_le_bytes().into(), 2.0_f64.to_le_bytes().into(), 2.1_f64.to_le_bytes().into()),
        ("BOOL", vec![1], vec![1], vec![0]),
        ("BYTES", vec![1, 0, 0, 0, b'1'], vec![1, 0, 0, 0, b'1'], vec![1, 0, 0, 0, b'2']),
    ];
    for (datatype, live, near, far) in cases {
        let of = |shadow: &Vec<u8>| difference_of(datatype, &[1], live.clone(), shadow.clone(), one);
        assert_eq!(of(near), None, "{datatype}");
        assert!(matches!(of(far), Some(Difference::Values { index: 0, .. })), "{datatype}");
    }
}

#[test]
fn top_one_compares_the_first_greatest_of_each_row() {
    let top = Agreement::TopOne;
    assert_eq!(
        first_difference(&[2, 3], &[0.1, 0.7, 0.2, 5.0, 1.0, 1.0], &[0.0, 0.4, 0.3, 9.0, 0.0, 8.0], top),
        None
    );
    assert_eq!(first_difference(&[2, 2], &[0.1, 0.9, 0.9, 0.1], &[0.2, 0.8, 0.2, 0.8], top), Some(2));
    assert_eq!(first_difference(&[1, 2], &[0.5, 0.5], &[0.6, 0.4], top), None, "of equals the first");
    assert_eq!(first_difference(&[1, 2], &[0.5, f32::NAN], &[0.5, f32::NAN], top), Some(0));
    assert_eq!(first_difference(&[0, 2], &[], &[], top), None);
}

#[test]
fn top_one_of_labels_wants_them_equal() {
    let top = Agreement::TopOne;
    let labels = |shape: &[i64], shadow: &[i64]| {
        difference_of("INT64", shape, int64(&[3, 5]), int64(shadow), top)
            .map(|difference| difference.place().unwrap().0)
    };
    assert_eq!(labels(&[2], &[3, 5]), None);
    assert_eq!(labels(&[2], &[3, 6]), Some(1));
    assert_eq!(labels(&[2, 1], &[4, 5]), Some(0));
    assert_eq!(labels(&[1, 2], &[8, 9]), None, "two scores of one row");
    assert_eq!(first_difference(&[2], &[0.3, 0.4], &[0.3, 0.5], top), Some(1), "one score per row");
    let text = |letter: u8| vec![1, 0, 0, 0, letter];
    assert!(difference_of("BYTES", &[1, 1], text(b'a'), text(b'b'), top).is_some());
    assert_eq!(difference_of("BYTES", &[1, 1], text(b'a'), text(b'a'), top), None);
    assert!(difference_of("BOOL", &[1, 2], vec![1, 0], vec![1, 1], top).is_some());
}

#[test]
fn distance_is_the_total_variation_of_each_row() {
    let tenth = distance(100_000);
    assert_eq!(first_difference(&[1, 2], &[0.9, 0.1], &[0.8, 0.2], tenth), None);
    assert_eq!(
        first_difference(
            &[2, 3],
            &[0.5, 0.25, 0.25, 0.9, 0.06, 0.04],
            &[0.5, 0.25, 0.25, 0.7, 0.2, 0.1],
            tenth
        ),
        Some(3)
    );
    assert_eq!(first_difference(&[3], &[0.2, 0.3, 0.5], &[0.3, 0.3, 0.4], tenth), None, "one row");
    assert_eq!(first_difference(&[1, 3], &[0.2, 0.3, 0.5], &[0.1, 0.5, 0.4], tenth), Some(1));
}

#[test]
fn what_is_no_distribution_is_at_no_distance() {
    let any = distance(1_000_000);
    for row in [[0.9, 0.2], [-0.1, 1.1], [f32::NAN, 1.0], [3.0, -2.0]] {
        assert_eq!(first_difference(&[1, 2], &row, &row, any), Some(0), "{row:?}");
    }
    assert_eq!(first_difference(&[1, 2], &[0.504, 0.503], &[1.0, 0.0], any), None, "nearly one");
    let label = |value| difference_of("INT64", &[1], int64(&[3]), int64(&[value]), any);
    assert_eq!(label(3), None);
    assert!(label(4).is_some(), "a label beside a distribution must be equal");
}

#[test]
fn each_output_has_its_own_rule_or_that_of_the_others() {
    let live =
        answer(&[("label", "INT64", &[1], int64(&[3])), ("scores", "FP32", &[1, 2], fp32(&[0.4, 0.6]))]);
    let shadow =
        answer(&[("label", "INT64", &[1], int64(&[3])), ("scores", "FP32", &[1, 2], fp32(&[0.3, 0.7]))]);
    let comparison =
        Comparison { outputs: vec![("scores".to_owned(), Agreement::TopOne)], others: Agreement::Exact };
    assert!(compare(&live, &shadow, &comparison).iter().all(|verdict| verdict.difference.is_none()));
    let differing: Vec<String> = compare(&live, &shadow, &others(Agreement::Exact))
        .into_iter()
        .filter(|verdict| verdict.difference.is_some())
        .map(|verdict| verdict.output)
        .collect();
    assert_eq!(differing, ["scores"]);
}

fn rule() -> impl Strategy<Value = Agreement> {
    prop_oneof![
        Just(Agreement::Exact),
        (0..2_000_000_000_u64, 0..2_000_000_000_u64).prop_map(|(absolute_nano, relative_nano)| {
            Agreement::Tolerance { absolute_nano, relative_nano }
        }),
        Just(Agreement::TopOne),
        (0..=1_000_000_u32).prop_map(distance),
    ]
}

proptest! {
    /// Finite rows agree with themselves; raw and typed contents are the same.
    #[test]
    fn an_answer_agrees_with_itself_however_it_came(
        values in prop::collection::vec(-1e6..1e6_f32, 1..20),
        rule in rule(),
    ) {
        let shape = [1, values.len() as i64];
        let raw = answer(&[("y", "FP32", &shape, fp32(&values))]);
        let mut typed = raw.clone();
        typed.raw_output_contents.clear();
        typed.outputs[0].contents =
            Some(InferTensorContents { fp32_contents: values, ..InferTensorContents::default() });
        let is_distance = matches!(rule, Agreement::Distance { .. });
        let verdict = compare(&raw, &typed, &others(rule));
        prop_assert!(is_distance || verdict[0].difference.is_none(), "{:?}", verdict);
        prop_assert_eq!(compare(&typed, &raw, &others(rule)), compare(&raw, &raw, &others(rule)));
    }

    /// More is allowed, more agrees.
    #[test]
    fn a_wider_tolerance_forgives_what_a_narrower_one_does(
        pairs in prop::collection::vec((-100.0..100.0_f32, -100.0..100.0_f32), 1..20),
        absolute in 0.0..50.0_f64,
        relative in 0.0..2.0_f64,
        more in 0.0..50.0_f64,
    ) {
        let (live, shadow): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let shape = [live.len() as i64];
        let narrow = first_difference(&shape, &live, &shadow, tolerance(absolute, relative));
        let wide = first_difference(&shape, &live, &shadow, tolerance(absolute + more, relative));
        prop_assert!(wide >= narrow || wide.is_none(), "{:?} {:?}", wide, narrow);
    }

    /// Top-one and distance do not ask which of the two is live.
    #[test]
    fn agreement_of_rows_is_mutual(
        pairs in prop::collection::vec((0.0..1.0_f32, 0.0..1.0_f32), 2..12),
        max_ppm in 0..=1_000_000_u32,
    ) {
        let normalised = |values: Vec<f32>| {
            let sum: f32 = values.iter().sum::<f32>().max(1e-6);
            values.into_iter().map(|value| value / sum).collect::<Vec<f32>>()
        };
        let (live, shadow): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let (live, shadow) = (normalised(live), normalised(shadow));
        let shape = [1, live.len() as i64];
        for rule in [Agreement::TopOne, distance(max_ppm)] {
            prop_assert_eq!(
                first_difference(&shape, &live, &shadow, rule).is_some(),
                first_difference(&shape, &shadow, &live, rule).is_some()
            );
        }
    }

    /// The order of outputs says nothing, and bytes of outsiders break nothing.
    #[test]
    fn any_bytes_are_compared_without_a_panic(
        datatype in prop::sample::select(vec!["FP32", "INT8", "BYTES", "BOOL", "FP16", "nonsense"]),
        shape in prop::collection::vec(-2..5_i64, 0..4),
        live in prop::collection::vec(any::<u8>(), 0..40),
        shadow in prop::collection::vec(any::<u8>(), 0..40),
        rule in rule(),
    ) {
        let left = answer(&[("y", datatype, &shape, live.clone()), ("z", datatype, &shape, shadow.clone())]);
        let right = answer(&[("z", datatype, &shape, shadow), ("y", datatype, &shape, live)]);
        prop_assert_eq!(compare(&left, &right, &others(rule)), compare(&left, &left, &others(rule)));
    }
}
