//! `docs/configuration.md`, rendered from the table of keys: it cannot lie.

#[cfg(test)]
use super::keys::{KEYS, Key};
