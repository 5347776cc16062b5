//! A Triton server from PyPI, stopped when dropped.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_bench::load::Protocol;
use starling_bench::server::{ServedModel, Signature};
use starling_chaos::cluster::free_ports;
use starling_chaos::wait;

use super::contest::Bench;

/// Where `make bench-triton` has installed bench/rival/requirements.txt.
const FOLDER_VARIABLE: &str = "STARLING_BENCH_TRITON";
const READY_LIMIT: Duration = Duration::from_secs(60);
const MODEL_PY: &str = include_str!("../../rival/model.py");
const MAX_BATCH: usize = 64;
/// The interpreter that the stub is built for must be the one that the packages are for.
const PYTHON_VERSION: &str = "import sys; print('%d.%d' % sys.version_info[:2])";

/// The process, and how it is asked.
pub struct Triton {
    process: Child,
    server: String,
    log: PathBuf,
}

impl Triton {
    /// Starts it with these models, by name and file; they are ready when this
    /// returns. All of them have one FP32 input and one FP32 output.
    pub fn start(bench: &Bench, models: &[(&Signature, &str, i64, &Path)]) -> Result<Self> {
        let packages = std::env::var_os(FOLDER_VARIABLE)
            .map(PathBuf::from)
            .with_context(|| format!("{FOLDER_VARIABLE} is not set; `make bench-triton` sets it"))?;
        let server_folder = packages.join("pytriton/tritonserver");
        put_stub_beside_backend(&server_folder)?;
        let repository = bench.file("triton-models");
        for (signature, output, columns_out, file) in models {
            write_model(&repository, &packages, signature, output, *columns_out, file)?;
        }
        let ports = free_ports()?;
        let log = bench.file("triton.log");
        let output = std::fs::File::create(&log)?;
        let process = Command::new(server_folder.join("bin/tritonserver"))
            .arg("--model-repository")
            .arg(&repository)
            .arg("--backend-directory")
            .arg(server_folder.join("backends"))
            .args(["--grpc-address", "127.0.0.1", "--http-address", "127.0.0.1", "--allow-metrics", "false"])
            .args(["--grpc-port", &ports.grpc.to_string(), "--http-port", &ports.rest.to_string()])
            .env("LD_LIBRARY_PATH", packages.join("nvidia_pytriton.libs"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start tritonserver")?;
        let mut triton = Self { process, server: format!("127.0.0.1:{}", ports.grpc), log };
        for (signature, ..) in models {
            triton.until_ready(bench, &signature.model)?;
        }
        Ok(triton)
    }

    fn until_ready(&mut self, bench: &Bench, model: &str) -> Result<()> {
        let served = self.served(model);
        let ready =
            bench.runtime.block_on(wait::until(&format!("{model} in Triton"), READY_LIMIT, || async {
                Ok(served.signature().await?)
            }));
        if let Err(error) = ready {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let complaints: Vec<&str> = log.lines().filter(|line| line.contains("rror")).take(3).collect();
            bail!("{error:#}; {}", complaints.join("; "));
        }
        Ok(())
    }

    /// A model there.
    pub fn served(&self, model: &str) -> ServedModel {
        ServedModel {
            server: self.server.clone(),
            protocol: Protocol::Grpc,
            model: model.to_owned(),
            version: String::new(),
        }
    }
}

impl Drop for Triton {
    fn drop(&mut self) {
        // Asked first, so that it takes its Python processes along.
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        const POLLS: u32 = 100;
        for _ in 0..POLLS {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn put_stub_beside_backend(server_folder: &Path) -> Result<()> {
    let output = Command::new("python3").args(["-c", PYTHON_VERSION]).output().context("python3")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stub = server_folder.join("python_backend_stubs").join(&version).join("triton_python_backend_stub");
    let beside = server_folder.join("backends/python/triton_python_backend_stub");
    std::fs::copy(&stub, &beside).with_context(|| format!("no stub for Python {version}"))?;
    Ok(())
}

fn write_model(
    repository: &Path,
    packages: &Path,
    signature: &Signature,
    output: &str,
    columns_out: i64,
    file: &Path,
) -> Result<()> {
    let folder = repository.join(&signature.model);
    std::fs::create_dir_all(folder.join("1"))?;
    std::fs::write(folder.join("1/model.py"), MODEL_PY)?;
    std::fs::write(folder.join("1/packages"), packages.as_os_str().as_encoded_bytes())?;
    std::fs::copy(file, folder.join("1/model.onnx"))?;
    let input = signature.inputs.first().context("a model without inputs")?;
    let columns_in = input.shape.last().context("an input without axes")?;
    let mut config = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        config,
        "name: \"{}\"\nbackend: \"python\"\nmax_batch_size: {MAX_BATCH}\n\
         input [ {{ name: \"{}\" data_type: TYPE_FP32 dims: [ {columns_in} ] }} ]\n\
         output [ {{ name: \"{output}\" data_type: TYPE_FP32 dims: [ {columns_out} ] }} ]\n\
         instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n\
         dynamic_batching {{ }}\n",
        signature.model, input.name
    );
    std::fs::write(folder.join("config.pbtxt"), config)?;
    Ok(())
}
