//! Starts the threads of a measurement, watches them, and adds up what they saw.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::BenchError;
use crate::clock::Clock;
use crate::load::LoadSpec;
use crate::outcome::Outcome;
use crate::payload::Payload;
use crate::recorder::{Recorder, Slice};
use crate::worker::{self, Connections, Task};

/// Threads begin together, once the last of them could have been told.
const HEAD_START: Duration = Duration::from_millis(5);

/// A measurement under way. Dropped, it stops and waits for its threads.
pub struct Running {
    clock: Arc<Clock>,
    load: Arc<LoadSpec>,
    recorders: Vec<Arc<Mutex<Recorder>>>,
    in_flight: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What a live view shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the start, warm-up included.
    pub elapsed: Duration,
    /// Whether answers are not counted yet.
    pub warming_up: bool,
    /// Successful answers since the start, warm-up included.
    pub answered: u64,
    /// Failed requests, without those of the warm-up.
    pub failed: u64,
    /// Under way now.
    pub in_flight: usize,
    /// Of the last whole slice; `None` before there is one with answers.
    pub p50_us: Option<f64>,
    /// Of the last whole slice.
    pub p99_us: Option<f64>,
}

/// Connects and begins. Returns once every connection stands; blocks until then.
/// Errors: a load that means nothing, a server that cannot be reached.
pub fn start(server: &str, payload: &Arc<Payload>, load: &LoadSpec) -> Result<Running, BenchError> {
    load.check()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = load.threads_on(cores);
    let load = Arc::new(load.clone());
    let in_flight = Arc::new(AtomicUsize::new(0));
    let mut recorders = Vec::new();
    let mut handles = Vec::new();
    let mut starts = Vec::new();
    let (connected, all_connected) = mpsc::channel();
    for thread in 0..threads {
        let recorder = Arc::new(Mutex::new(Recorder::new(load.slice)));
        recorders.push(recorder.clone());
        let task = Task {
            server: server.into(),
            payload: payload.clone(),
            load: load.clone(),
            recorder,
            in_flight: in_flight.clone(),
            thread,
            threads,
        };
        let (start, started) = oneshot::channel();
        starts.push(start);
        let connected = connected.clone();
        let body = move || thread_main(task, connected, started);
        handles.push(std::thread::Builder::new().name(format!("load-{thread}")).spawn(body)?);
    }
    drop(connected);
    let mut outcome = Ok(());
    // Ends when each thread has said it, or has let go of its end.
    for said in all_connected {
        outcome = outcome.and(said);
    }
    // Without a start the threads end.
    outcome?;
    let clock = Arc::new(Clock::new(Instant::now() + HEAD_START, load.warm_up, load.ending));
    for start in starts {
        // A thread that is gone has an error to tell when it is joined.
        let _ = start.send(clock.clone());
    }
    Ok(Running { clock, load, recorders, in_flight, threads: handles })
}

fn thread_main(
    task: Task,
    connected: mpsc::Sender<Result<(), BenchError>>,
    started: oneshot::Receiver<Arc<Clock>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connections: Connections = match worker::connect(&task).await {
            Ok(connections) => connections,
            Err(error) => {
                // The receiver is gone once another thread failed.
                let _ = connected.send(Err(error));
                return Ok(());
            }
        };
        let _ = connected.send(Ok(()));
        drop(connected);
        let Ok(clock) = started.await else { return Ok(()) };
        tokio::time::sleep_until(clock.instant(Duration::ZERO).into()).await;
        let recorder = task.recorder.clone();
        let before = processor_time();
        worker::run(task, connections, clock).await?;
        let spent = processor_time().saturating_sub(before);
        recorder.lock().unwrap_or_else(PoisonError::into_inner).processor_time = spent;
        Ok(())
    })
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

impl Running {
    /// How far it is.
    pub fn progress(&self) -> Progress {
        let elapsed = self.clock.now();
        let slice_now = elapsed.saturating_sub(self.clock.begin).as_nanos() / self.load.slice.as_nanos();
        let last_whole = (slice_now as usize).checked_sub(1);
        let mut progress = Progress {
            elapsed,
            warming_up: elapsed < self.clock.begin,
            answered: 0,
            failed: 0,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            p50_us: None,
            p99_us: None,
        };
        let mut slice = Slice::empty();
        for recorder in &self.recorders {
            let recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            progress.answered += recorder.answered_in_all;
            progress.failed += recorder.failed;
            if let Some(part) = last_whole.and_then(|index| recorder.slices.get(index)) {
                slice.merge(part);
            }
        }
        if !slice.latencies.is_empty() {
            let micros = |quantile: f64| slice.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
            progress.p50_us = Some(micros(0.50));
            progress.p99_us = Some(micros(0.99));
        }
        progress
    }

    /// Since the start, warm-up included: the time of the outcome's windows, once
    /// the warm-up is taken off.
    pub fn elapsed(&self) -> Duration {
        self.clock.now()
    }

    /// Whether all threads have ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends the window now; what is under way is still waited for.
    pub fn stop(&self) {
        self.clock.stop();
    }

    /// Leaves the threads to themselves, for a program that is about to end.
    pub fn abandon(mut self) {
        self.clock.stop();
        self.threads.clear();
    }

    /// Waits for the end and adds up. Errors: a thread could not do its work.
    pub fn finish(mut self) -> Result<Outcome, BenchError> {
        let mut failed = None;
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of it panicked")));
            failed = failed.or_else(|| ended.err());
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let mut sum = Recorder::new(self.load.slice);
        for recorder in &self.recorders {
            sum.merge(&recorder.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let measured = self.clock.end().saturating_sub(self.clock.begin);
        Ok(Outcome::new(sum, measured, self.load.slice))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clock.stop();
        for thread in self.threads.drain(..) {
            // Nobody asks any more.
            let _ = thread.join();
        }
    }
}

/// Starts a load and waits for its end.
pub fn measure(server: &str, payload: &Arc<Payload>, load: &LoadSpec) -> Result<Outcome, BenchError> {
    start(server, payload, load)?.finish()
}
