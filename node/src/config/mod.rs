//! What a node is told at its start: one table of keys ([`keys`]), read from a
//! TOML file, the environment and flags, the later ones winning.

mod field;
mod keys;
#[cfg(test)]
mod page;
mod settings;
mod sources;
mod units;

pub(crate) use field::Field;
pub(crate) use keys::KEYS;
pub(crate) use settings::Settings;
pub(crate) use sources::{Given, resolve};
pub(crate) use units::parse_duration;
