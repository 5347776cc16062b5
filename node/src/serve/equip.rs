//! ONNX Runtime with what the configuration gives its sessions: libraries,
//! operators, devices. What was asked for and is absent stops the start.

use std::path::{Path, PathBuf};

use starling_actors::inference::devices::Device;
use starling_actors::inference::{Equipment, OnnxRuntime, preload};

use super::CannotStart;
use crate::config::Settings;
use crate::telemetry::Gpus;

/// The runtime, and what is to be said about it once there is a log.
pub(super) struct Equipped {
    pub(super) onnx: OnnxRuntime,
    /// The GPUs of this machine cannot be used, and nobody asked for them.
    pub(super) unused_gpus: Option<String>,
}

/// Loads everything. Blocking; once per process.
pub(super) fn equipped(settings: &Settings, gpus: Option<&Gpus>) -> Result<Equipped, CannotStart> {
    for library in &settings.preload_libraries {
        preload::load_globally(Path::new(library)).map_err(|error| CannotStart(error.to_string()))?;
    }
    let onnx = OnnxRuntime::find_and_load().map_err(|error| CannotStart(error.to_string()))?;
    let devices = asked_for(&settings.devices)?;
    let custom_op_libraries: Vec<PathBuf> = settings.custom_op_libraries.iter().map(PathBuf::from).collect();
    let equip = |devices| onnx.equip(Equipment { devices, custom_op_libraries: custom_op_libraries.clone() });
    let failed = |error| CannotStart(format!("{error} (config keys `devices` and `custom_op_libraries`)"));
    if !devices.is_empty() {
        return Ok(Equipped { onnx: equip(devices).map_err(failed)?, unused_gpus: None });
    }
    let mut unused_gpus = None;
    let found = found(gpus.map_or(0, Gpus::count));
    if !found.is_empty() {
        match equip(found) {
            Ok(onnx) => return Ok(Equipped { onnx, unused_gpus: None }),
            Err(error) => unused_gpus = Some(error.to_string()),
        }
    }
    Ok(Equipped { onnx: equip(vec![Device::Cpu]).map_err(failed)?, unused_gpus })
}

fn asked_for(names: &[String]) -> Result<Vec<Device>, CannotStart> {
    let mut devices: Vec<Device> = Vec::with_capacity(names.len());
    for name in names {
        let device = name.parse().map_err(|error| CannotStart(format!("key 'devices': {error}")))?;
        if devices.contains(&device) {
            return Err(CannotStart(format!(
                "key 'devices': {device} is there twice; `instances` is per device"
            )));
        }
        devices.push(device);
    }
    Ok(devices)
}

/// What a node uses that was told nothing; empty: the CPU only.
fn found(gpus: u32) -> Vec<Device> {
    match gpus {
        0 => Vec::new(),
        gpus => (0..gpus).map(Device::Cuda).chain([Device::Cpu]).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn devices_are_taken_in_the_order_of_the_configuration() {
        let names = ["cuda:1".to_owned(), "cpu".to_owned()];
        assert_eq!(asked_for(&names), Ok(vec![Device::Cuda(1), Device::Cpu]));
        assert_eq!(asked_for(&[]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_device_or_there_twice_stops_the_start() {
        let refused = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            asked_for(&names).unwrap_err().0
        };
        assert_eq!(
            refused(&["gpu"]),
            "key 'devices': 'gpu' is no device; write cpu, cuda:NUMBER or tensorrt:NUMBER"
        );
        assert_eq!(
            refused(&["cuda:0", "cuda"]),
            "key 'devices': cuda:0 is there twice; `instances` is per device"
        );
    }

    #[test]
    fn a_node_that_was_told_nothing_prefers_the_gpus_it_finds() {
        assert_eq!(found(0), []);
        assert_eq!(found(2), [Device::Cuda(0), Device::Cuda(1), Device::Cpu]);
    }
}
