//! A model tried with made-up rows: what a declaration leaves open, a run shows.

use std::time::Duration;

use half::{bf16, f16};
use ort::session::RunOptions;
use starling_raft::state::models::DataType;

use super::session::ModelSession;
use super::tensor::columns_out::OutputColumn;
use super::time_limit::with_time_limit;

/// After which a trial is ended and counts as inconclusive.
const TRIAL_TIME_MAX: Duration = Duration::from_secs(2);
/// Kernels sum in another order for another number of rows, so equal results
/// differ by rounding.
const RELATIVE_DIFFERENCE_MAX: f64 = 1e-3;
const HALF_RELATIVE_DIFFERENCE_MAX: f64 = 2e-2;

/// What a trial has shown.
pub(super) struct Finding {
    /// Of a run with one row; empty if it failed.
    pub output_shapes: Vec<Vec<i64>>,
    /// Two rows together gave what each gave alone, or (an inconclusive trial)
    /// nothing speaks against it.
    pub rows_are_independent: bool,
}

/// Runs one row, another one, and both together. Blocking.
pub(super) fn run(session: &mut ModelSession) -> Finding {
    let finding = with_time_limit(TRIAL_TIME_MAX, |options| try_rows(session, options));
    finding.flatten().unwrap_or(Finding { output_shapes: Vec::new(), rows_are_independent: true })
}

/// `None`: made-up rows mean nothing to this model.
fn try_rows(session: &mut ModelSession, options: &RunOptions) -> Option<Finding> {
    let mut run = |first_row, rows| {
        session.fill_with_samples(first_row, rows);
        session.run(options).ok().map(|ran| ran.columns)
    };
    let first = run(0, 1)?;
    let output_shapes = first.iter().map(|column| column.shape.clone()).collect();
    let (Some(second), Some(both)) = (run(1, 1), run(0, 2)) else {
        return Some(Finding { output_shapes, rows_are_independent: false });
    };
    let rows_are_independent = both
        .iter()
        .zip(first.iter().zip(&second))
        .all(|(both, (first, second))| is_stack_of(both, first, second));
    Some(Finding { output_shapes, rows_are_independent })
}

fn is_stack_of(both: &OutputColumn, first: &OutputColumn, second: &OutputColumn) -> bool {
    let shapes_stack = both.rows() == Some(2)
        && first.rows() == Some(1)
        && second.rows() == Some(1)
        && both.shape[1..] == first.shape[1..]
        && both.shape[1..] == second.shape[1..];
    shapes_stack
        && alike(both.data_type, &both.raw_rows(&(0..1)), &first.raw)
        && alike(both.data_type, &both.raw_rows(&(1..2)), &second.raw)
}

fn alike(data_type: DataType, left: &[u8], right: &[u8]) -> bool {
    match data_type {
        DataType::Fp32 => close(left, right, RELATIVE_DIFFERENCE_MAX, |b| f64::from(f32::from_le_bytes(b))),
        DataType::Fp64 => close(left, right, RELATIVE_DIFFERENCE_MAX, f64::from_le_bytes),
        DataType::Fp16 => {
            close(left, right, HALF_RELATIVE_DIFFERENCE_MAX, |b| f16::from_le_bytes(b).to_f64())
        }
        DataType::Bf16 => {
            close(left, right, HALF_RELATIVE_DIFFERENCE_MAX, |b| bf16::from_le_bytes(b).to_f64())
        }
        _ => left == right,
    }
}

fn close<const N: usize>(left: &[u8], right: &[u8], allowed: f64, decode: fn([u8; N]) -> f64) -> bool {
    let numbers = left.as_chunks::<N>().0.iter().zip(right.as_chunks::<N>().0);
    left.len() == right.len()
        && numbers.map(|(left, right)| (decode(*left), decode(*right))).all(|(left, right)| {
            let scale = 1.0_f64.max(left.abs()).max(right.abs());
            left == right || (left.is_nan() && right.is_nan()) || (left - right).abs() <= allowed * scale
        })
}
