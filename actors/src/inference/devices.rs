//! What sessions run on: how devices are written, and which of a node's devices
//! a version gets. Pure.

use std::fmt;
use std::str::FromStr;

use starling_raft::state::models::DeviceKind;

/// A GPU's number beyond this is a mistake.
const GPU_NUMBER_MAX: u32 = 1_023;

/// One execution provider on one device. Written `cpu`, `cuda:0`, `tensorrt:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A GPU by its number, through CUDA.
    Cuda(u32),
    /// A GPU by its number, through TensorRT; what TensorRT cannot do, CUDA does.
    TensorRt(u32),
}

/// The text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no device; write cpu, cuda:NUMBER or tensorrt:NUMBER")]
pub struct NotADevice(String);

/// The node has nothing of the kind that a version wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the version wants a {wanted}, and this node runs on {} (config key `devices`)", list(.devices))]
pub struct NoSuchDevice {
    wanted: &'static str,
    devices: Vec<Device>,
}

impl Device {
    /// Whether it is a GPU, whichever way it is reached.
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::TensorRt(number) => write!(f, "tensorrt:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let refuse = || NotADevice(text.to_owned());
        let (provider, number) = match text.split_once(':') {
            Some((provider, number)) => (provider, Some(number)),
            None => (text, None),
        };
        let number = match number {
            None => 0,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|number| *number <= GPU_NUMBER_MAX).ok_or_else(refuse)?
            }
            Some(_) => return Err(refuse()),
        };
        match provider {
            "cpu" if !text.contains(':') => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(number)),
            "tensorrt" => Ok(Self::TensorRt(number)),
            _ => Err(refuse()),
        }
    }
}

/// The devices that a version runs on, out of those of its node. A version that
/// does not mind gets all of the kind that the node lists first.
pub fn choose(devices: &[Device], wanted: DeviceKind) -> Result<Vec<Device>, NoSuchDevice> {
    let gpu_first = devices.first().is_some_and(|device| device.is_gpu());
    let (want_gpu, wanted) = match wanted {
        DeviceKind::Any => (gpu_first, "device"),
        DeviceKind::Cpu => (false, "CPU"),
        DeviceKind::Gpu => (true, "GPU"),
    };
    let chosen: Vec<Device> = devices.iter().copied().filter(|device| device.is_gpu() == want_gpu).collect();
    if chosen.is_empty() {
        return Err(NoSuchDevice { wanted, devices: devices.to_vec() });
    }
    Ok(chosen)
}

fn list(devices: &[Device]) -> String {
    let names: Vec<String> = devices.iter().map(Device::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::Device::{Cpu, Cuda, TensorRt};
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for (text, device) in
            [("cpu", Cpu), ("cuda:0", Cuda(0)), ("cuda:7", Cuda(7)), ("tensorrt:1", TensorRt(1))]
        {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Cuda(0)));
        assert_eq!("tensorrt".parse(), Ok(TensorRt(0)));
    }

    #[test]
    fn what_is_no_device_is_refused_by_name() {
        for text in
            ["", "gpu", "CUDA:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:1024", "cpu:0", "cuda:0:1"]
        {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("'{text}' is no device; write cpu, cuda:NUMBER or tensorrt:NUMBER")
            );
        }
    }

    #[test]
    fn a_version_that_does_not_mind_gets_the_kind_listed_first() {
        assert_eq!(choose(&[Cuda(0), Cuda(1), Cpu], DeviceKind::Any), Ok(vec![Cuda(0), Cuda(1)]));
        assert_eq!(choose(&[Cpu, Cuda(0)], DeviceKind::Any), Ok(vec![Cpu]));
    }

    #[test]
    fn a_version_gets_what_it_wants_or_learns_what_there_is() {
        assert_eq!(choose(&[Cuda(0), Cpu, TensorRt(1)], DeviceKind::Gpu), Ok(vec![Cuda(0), TensorRt(1)]));
        assert_eq!(choose(&[Cuda(0), Cpu], DeviceKind::Cpu), Ok(vec![Cpu]));
        let without_gpu = choose(&[Cpu], DeviceKind::Gpu).unwrap_err();
        assert_eq!(
            without_gpu.to_string(),
            "the version wants a GPU, and this node runs on cpu (config key `devices`)"
        );
        let without_cpu = choose(&[Cuda(0), TensorRt(0)], DeviceKind::Cpu).unwrap_err();
        assert_eq!(
            without_cpu.to_string(),
            "the version wants a CPU, and this node runs on cuda:0, tensorrt:0 (config key `devices`)"
        );
    }
}
