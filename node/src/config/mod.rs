//! What a node is told at its start: one table of keys ([`keys`]), read from a
//! TOML file, the environment and flags, the later ones winning.

mod field;
mod keys;
mod page;
mod settings;
mod sources;
mod units;

pub(crate) use field::Field;
pub(crate) use keys::{KEYS, Key};
pub(crate) use settings::Settings;
pub(crate) use sources::{ConfigError, Given, resolve};
