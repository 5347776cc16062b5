//! Tensors between the wire and the runtime: what a request may say, how its
//! contents become one batch, how a batch becomes answers.
//!
//! ```text
//! request → check → (queue) → columns_in → session → columns_out → responses
//! ```

pub mod data_type;

pub(super) mod bytes_elements;
pub(super) mod check;
pub(super) mod columns_in;
pub(super) mod columns_out;
pub(super) mod elements;
pub(super) mod respond;
pub(super) mod string_tensor;
