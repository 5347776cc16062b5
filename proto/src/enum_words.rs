//! How enumerations of the administration contract look in JSON and YAML: as a
//! lower-case word, not as their number.

use serde::Serializer;

use crate::admin::{DeviceKind, InstanceMode};

pub(crate) fn instance_mode<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
    word(InstanceMode::try_from(*number).map_or("", |mode| mode.as_str_name()), to)
}

pub(crate) fn device_kind<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
    word(DeviceKind::try_from(*number).map_or("", |kind| kind.as_str_name()), to)
}

/// `INSTANCE_MODE_LOCAL` is `local`; a number that this binary does not know is `unknown`.
fn word<S: Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    let last = name.rsplit('_').next().filter(|last| !last.is_empty());
    to.serialize_str(&last.unwrap_or("unknown").to_lowercase())
}
