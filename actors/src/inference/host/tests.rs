//! Real models, served whole: answers in every type, batches, faults, ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
