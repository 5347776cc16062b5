//! How contestants take turns: every one of them in every round, so that a machine
//! that is slower for a while is so for all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_bench::figures::{Measurement, Row, Sample};
use starling_bench::generator;
use starling_bench::load::{LoadSpec, Protocol};
use starling_bench::outcome::Outcome;
use starling_bench::payload::{Inputs, Payload, random_request};
use starling_bench::server::{ServedModel, ServerTimes, Signature};
use starling_chaos::site::Site;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::machine;
use super::models::Models;
use super::raw::RawReport;

/// Requests that differ, so that no cache of one input helps anybody.
const REQUESTS: u64 = 8;

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Alternating rounds.
    pub rounds: usize,
    /// Sent before each measurement and not counted.
    pub warm_up: Duration,
    /// Of each measurement.
    pub duration: Duration,
    /// gRPC connections of a closed loop; 0: one per client.
    pub connections: usize,
    /// How long the data plane is saturated to see whether elections are lost.
    pub saturation: Duration,
    /// Around a version switch.
    pub around_switch: Duration,
}

impl Pace {
    /// As the figures are asked for.
    pub fn full(rounds: usize, seconds: f64) -> Self {
        Self {
            rounds,
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs_f64(seconds),
            connections: 0,
            saturation: Duration::from_secs(60),
            around_switch: Duration::from_secs(5),
        }
    }

    /// To see that it works.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            warm_up: Duration::from_millis(200),
            duration: Duration::from_millis(500),
            connections: 0,
            saturation: Duration::from_secs(3),
            around_switch: Duration::from_secs(1),
        }
    }
}

/// What a scenario found.
#[derive(Debug, Default)]
pub struct Found {
    /// Figures with what is asked of them.
    pub rows: Vec<Row>,
    /// What they were computed from.
    pub measurements: Vec<Measurement>,
}

/// Everything that scenarios share.
pub struct Bench {
    /// How often and how long.
    pub pace: Pace,
    /// Where binaries and libraries are.
    pub site: Site,
    /// The files to serve.
    pub models: Models,
    /// Drives what is asked of servers; idle during measurements.
    pub runtime: Runtime,
    folder: TempDir,
}

/// One contestant under one load.
pub struct Entry {
    /// Who and how, for the table.
    pub name: String,
    /// What is asked, and where.
    pub served: ServedModel,
    /// The server's process, to read its processor time.
    pub pid: Option<u32>,
    /// What is sent.
    pub payload: Arc<Payload>,
    /// How.
    pub load: LoadSpec,
}

/// An entry in one round.
pub struct Turn {
    /// Summed up.
    pub sample: Sample,
    /// In full.
    pub outcome: Outcome,
}

impl Bench {
    /// Finds what it needs, and writes the generated models into a temporary folder.
    pub fn new(pace: Pace) -> Result<Self> {
        let site = Site::find()?;
        let folder = tempfile::Builder::new().prefix("starling-bench-").tempdir()?;
        let checkout = site.models.parent().and_then(Path::parent).context("the models have no checkout")?;
        let models = Models::make(checkout, folder.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { pace, site, models, runtime, folder })
    }

    /// A file of this run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// So many clients for the usual time.
    pub fn clients(&self, clients: usize) -> LoadSpec {
        let connections = self.pace.connections;
        LoadSpec { connections, ..LoadSpec::closed(clients, self.pace.warm_up, self.pace.duration) }
    }

    /// The signature of a served model, asked over gRPC.
    pub fn signature(&self, served: &ServedModel) -> Result<Signature> {
        let context = || format!("{} at {}", served.model, served.server);
        self.runtime.block_on(served.signature()).with_context(context)
    }

    /// Requests of one random row each, the same ones for everybody.
    pub fn payload(
        &self,
        protocol: Protocol,
        server: &str,
        signature: &Signature,
        deadline: Option<Duration>,
    ) -> Result<Arc<Payload>> {
        let inputs = Inputs { batch: 1, ..Inputs::default() };
        let requests: Vec<_> =
            (0..REQUESTS).map(|seed| random_request(signature, &inputs, seed)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Payload::new(protocol, server, &requests, deadline)?))
    }

    /// One entry once. Requests that fail are counted, not fatal.
    pub fn turn(&self, entry: &Entry) -> Result<Turn> {
        let spent = || entry.pid.map_or(Ok(Duration::ZERO), machine::processor_time);
        // An echo has no statistics.
        let before = self.runtime.block_on(entry.served.statistics());
        let spent_before = spent()?;
        let mut outcome = generator::measure(&entry.served.server, &entry.payload, &entry.load)?;
        let spent = spent()?.saturating_sub(spent_before);
        if let Some(before) = before
            && let Some(after) = self.runtime.block_on(entry.served.statistics())
        {
            outcome.server = ServerTimes::between(&before, &after);
        }
        let requests = outcome.answered_since_start.max(1) as f64;
        let server_cpu_us = spent.as_secs_f64() * 1e6 / requests;
        let sample = Sample { server_cpu_us, ..Sample::of(&outcome) };
        Ok(Turn { sample, outcome })
    }

    /// Like `turn`, where no request should fail: those that do are told at once, and
    /// make a row of the table.
    pub fn expectant_turn(&self, entry: &Entry) -> Result<Turn> {
        let turn = self.turn(entry)?;
        for (code, failures) in &turn.outcome.errors {
            let count = failures.count;
            eprintln!("  {}: {count} requests failed with {code}: {}", entry.name, failures.example);
        }
        if turn.outcome.answered == 0 {
            bail!("{}: nothing was answered", entry.name);
        }
        Ok(turn)
    }

    /// All entries in all rounds; a measurement per entry, in the same order.
    pub fn alternate<const N: usize>(
        &self,
        scenario: &str,
        entries: &[Entry; N],
    ) -> Result<[Measurement; N]> {
        self.alternate_with(scenario, entries, |_, _| Ok(()))
    }

    /// The same, with a look at each outcome: `look(entry, outcome)`.
    pub fn alternate_with<const N: usize>(
        &self,
        scenario: &str,
        entries: &[Entry; N],
        look: impl FnMut(usize, &Outcome) -> Result<()>,
    ) -> Result<[Measurement; N]> {
        let mut measurements = entries.each_ref().map(|entry| Measurement::new(scenario, &entry.name));
        self.take_turns(entries, &mut measurements, look)?;
        Ok(measurements)
    }

    /// The same, of so many entries as there are.
    pub fn alternate_all(&self, scenario: &str, entries: &[Entry]) -> Result<Vec<Measurement>> {
        let mut measurements: Vec<_> =
            entries.iter().map(|entry| Measurement::new(scenario, &entry.name)).collect();
        self.take_turns(entries, &mut measurements, |_, _| Ok(()))?;
        Ok(measurements)
    }

    /// The same beside the bare session loop of a model, on all cores and at its best
    /// batch size: it takes its turn after the first entry of each round.
    pub fn alternate_beside_sessions<const N: usize>(
        &self,
        scenario: &str,
        entries: &[Entry; N],
        model: &Path,
    ) -> Result<([Measurement; N], Measurement)> {
        let (cores, batch) = (self.cores(), self.best_batch(model)?);
        let name = format!("session loop of {scenario}, {cores} threads, batches of {batch}, rows");
        let mut sessions = Measurement::new(scenario, &name);
        let measurements = self.alternate_with(scenario, entries, |entry, _| {
            if entry == 0 {
                let report = self.raw(model, cores, batch, self.pace.duration)?;
                sessions.rounds.push(Sample::of_rows(report.rows_per_second));
            }
            Ok(())
        })?;
        Ok((measurements, sessions))
    }

    fn take_turns(
        &self,
        entries: &[Entry],
        measurements: &mut [Measurement],
        mut look: impl FnMut(usize, &Outcome) -> Result<()>,
    ) -> Result<()> {
        for round in 1..=self.pace.rounds {
            eprintln!("  round {round} of {}", self.pace.rounds);
            for (index, (entry, measurement)) in entries.iter().zip(&mut *measurements).enumerate() {
                let turn = self.expectant_turn(entry)?;
                look(index, &turn.outcome)?;
                measurement.rounds.push(turn.sample);
            }
        }
        Ok(())
    }

    /// The session in a loop: rows per second.
    pub fn raw(&self, model: &Path, threads: usize, batch: usize, duration: Duration) -> Result<RawReport> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("raw").arg("--model").arg(model);
        command.args(["--threads", &threads.to_string(), "--batch", &batch.to_string()]);
        command.args(["--seconds", &duration.as_secs_f64().to_string()]);
        if let Some(library) = &self.site.onnxruntime {
            command.env("ORT_DYLIB_PATH", library);
        }
        let output = command.output()?;
        if !output.status.success() {
            bail!("the raw session loop failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The batch size at which all cores together make the most rows per second.
    pub fn best_batch(&self, model: &Path) -> Result<usize> {
        const BATCHES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
        let probe = self.pace.duration / 4;
        let mut best = (0.0, 1);
        for batch in BATCHES {
            let rows_per_second = self.raw(model, self.cores(), batch, probe)?.rows_per_second;
            if rows_per_second > best.0 {
                best = (rows_per_second, batch);
            }
        }
        Ok(best.1)
    }

    /// Cores that this process, and so everybody, may use.
    pub fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}
