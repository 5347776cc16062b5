//! The GPUs of this machine, as NVIDIA's management library (NVML) tells of
//! them, and their metrics under Triton's names. Where the library is missing
//! there are no GPUs, and that is all.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// Comes with the driver; the name without the version only with its headers.
const NVML_LIBRARY: &str = "libnvidia-ml.so.1";
/// Beyond this a machine is not believed.
const GPUS_MAX: u32 = 64;

/// A way to NVML, on a machine that has it and at least one GPU.
pub(crate) struct Gpus {
    nvml: Nvml,
    count: u32,
    metrics: GpuMetrics,
}

/// Why a node knows of no GPUs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoGpus {
    /// The library is missing, or its driver does not run.
    #[error("NVML cannot be used: {0}")]
    Nvml(#[from] NvmlError),
    /// The driver runs and has none.
    #[error("the driver knows of none")]
    None,
    /// A mistake in this file.
    #[error("their metrics cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
}

struct GpuMetrics {
    utilization: GaugeVec,
    memory_used_bytes: GaugeVec,
    memory_total_bytes: GaugeVec,
    power_usage_watts: GaugeVec,
}

impl Gpus {
    /// The error says why there are none that this node knows of. Blocking, for
    /// short.
    pub(crate) fn find() -> Result<Self, NoGpus> {
        Self::find_through(NVML_LIBRARY)
    }

    fn find_through(library: &str) -> Result<Self, NoGpus> {
        let nvml = Nvml::builder().lib_path(OsStr::new(library)).init()?;
        let count = nvml.device_count()?.min(GPUS_MAX);
        if count == 0 {
            return Err(NoGpus::None);
        }
        Ok(Self { nvml, count, metrics: GpuMetrics::new()? })
    }

    /// How many there are; they are numbered from 0.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// What a GPU does not tell keeps its last value.
    fn observe(&self, number: u32) -> Result<(), NvmlError> {
        let gpu = self.nvml.device_by_index(number)?;
        let uuid = gpu.uuid()?;
        let labels = &[uuid.as_str()];
        if let Ok(rates) = gpu.utilization_rates() {
            self.metrics.utilization.with_label_values(labels).set(f64::from(rates.gpu) / 100.0);
        }
        if let Ok(memory) = gpu.memory_info() {
            self.metrics.memory_used_bytes.with_label_values(labels).set(memory.used as f64);
            self.metrics.memory_total_bytes.with_label_values(labels).set(memory.total as f64);
        }
        if let Ok(milliwatts) = gpu.power_usage() {
            self.metrics.power_usage_watts.with_label_values(labels).set(f64::from(milliwatts) / 1_000.0);
        }
        Ok(())
    }
}

impl GpuMetrics {
    fn new() -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["gpu_uuid"]);
        Ok(Self {
            utilization: gauge("nv_gpu_utilization", "How busy the GPU is, from 0.0 to 1.0.")?,
            memory_used_bytes: gauge(
                "nv_gpu_memory_used_bytes",
                "Memory of the GPU that is in use, in bytes.",
            )?,
            memory_total_bytes: gauge("nv_gpu_memory_total_bytes", "Memory of the GPU, in bytes.")?,
            power_usage_watts: gauge("nv_gpu_power_usage", "Power that the GPU draws, in watts.")?,
        })
    }

    fn all(&self) -> [&GaugeVec; 4] {
        [&self.utilization, &self.memory_used_bytes, &self.memory_total_bytes, &self.power_usage_watts]
    }
}

/// Asks the GPUs whenever metrics are read.
impl Collector for Gpus {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics.all().iter().flat_map(|gauge| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for number in 0..self.count {
            if let Err(error) = self.observe(number) {
                tracing::debug!(%error, number, "a GPU does not answer");
            }
        }
        self.metrics.all().iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn without_the_library_there_are_no_gpus_and_no_harm() {
        let error = Gpus::find_through("libno-such-nvml.so.1").err().expect("no such library");
        assert!(error.to_string().starts_with("NVML cannot be used: "), "{error}");
    }

    /// Every node does this, with GPUs or without.
    #[test]
    fn what_this_machine_has_can_be_asked_for_and_gathered() {
        let registry = prometheus::Registry::new();
        let Ok(gpus) = Gpus::find() else { return assert!(registry.gather().is_empty()) };
        let count = gpus.count() as usize;
        registry.register(Box::new(gpus)).unwrap();
        let families = registry.gather();
        assert!(families.iter().any(|family| family.name() == "nv_gpu_memory_total_bytes"));
        assert!(families.iter().all(|family| family.get_metric().len() <= count));
    }

    #[test]
    fn the_names_are_those_of_triton() {
        let metrics = GpuMetrics::new().unwrap();
        let names: Vec<String> =
            metrics.all().iter().flat_map(|gauge| gauge.desc()).map(|desc| desc.fq_name.clone()).collect();
        assert_eq!(
            names,
            [
                "nv_gpu_utilization",
                "nv_gpu_memory_used_bytes",
                "nv_gpu_memory_total_bytes",
                "nv_gpu_power_usage"
            ]
        );
    }
}
