//! Closed-loop traffic on all nodes: each worker sends the next image when it
//! has the answer to the last, and what happened is counted by phase and node.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::caller::{Caller, Miss, Targets};
use crate::cause::Cause;
use crate::digits::{Digit, Prediction};

const LATENCY_MAX_US: u64 = 60_000_000;
const LATENCY_DIGITS: u8 = 3;

/// How hard the load is.
#[derive(Debug, Clone, Copy)]
pub struct LoadConfig {
    /// Clients with the same home node.
    pub workers_per_node: usize,
    /// Between an answer and the next request.
    pub pause: Duration,
    /// Which image comes next.
    pub draw: Draw,
}

/// Which image comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// One after the other, and again from the first.
    InTurn,
    /// Any, whatever came before.
    WithReplacement,
}

/// What became known of a prediction: whether it was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reward {
    /// The decision's id.
    pub decision: String,
    /// It named what the image shows.
    pub correct: bool,
}

/// A retry or failure, as the closing table lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissKind {
    /// What was going on.
    pub phase: String,
    /// The index of the node that was asked.
    pub node: usize,
    /// Why.
    pub cause: Cause,
}

/// How often, and one example.
#[derive(Debug, Clone)]
pub struct Misses {
    /// How often.
    pub count: u64,
    /// The first one's words.
    pub example: String,
}

/// Counts of one version in one phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct Served {
    /// Predictions.
    pub count: u64,
    /// Those that named what the image shows.
    pub correct: u64,
}

/// Latencies of one home node in one phase, as its clients felt them, retries included.
#[derive(Debug, Clone)]
pub struct Felt {
    /// Microseconds.
    pub latency_us: Histogram<u64>,
}

impl Felt {
    fn new() -> Result<Self> {
        let latency_us =
            Histogram::new_with_max(LATENCY_MAX_US, LATENCY_DIGITS).context("a latency histogram")?;
        Ok(Self { latency_us })
    }
}

/// Everything that was counted.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Requests that workers wanted answered.
    pub sent: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not, with the cause of the last attempt.
    pub failed: BTreeMap<MissKind, Misses>,
    /// Attempts that were followed by another.
    pub retried: BTreeMap<MissKind, Misses>,
    /// By phase and version label.
    pub served: BTreeMap<(String, String), Served>,
    /// By phase and home node.
    pub felt: BTreeMap<(String, usize), Felt>,
    /// The phases in the order in which they ended, and how long each lasted.
    pub lasted: Vec<(String, Duration)>,
    /// The largest epoch in an answer.
    pub newest_epoch: u64,
}

impl Ledger {
    /// Requests that failed for good.
    pub fn failures(&self) -> u64 {
        self.failed.values().map(|misses| misses.count).sum()
    }

    /// What one version served in one phase.
    pub fn served_in(&self, phase: &str, version: &str) -> Served {
        self.served.get(&(phase.to_owned(), version.to_owned())).copied().unwrap_or_default()
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.sent += other.sent;
        self.answered += other.answered;
        self.newest_epoch = self.newest_epoch.max(other.newest_epoch);
        for (mine, theirs) in [(&mut self.failed, &other.failed), (&mut self.retried, &other.retried)] {
            for (kind, misses) in theirs {
                mine.entry(kind.clone())
                    .and_modify(|sum| sum.count += misses.count)
                    .or_insert_with(|| misses.clone());
            }
        }
        for (key, served) in &other.served {
            let sum = self.served.entry(key.clone()).or_default();
            sum.count += served.count;
            sum.correct += served.correct;
        }
        for (key, felt) in &other.felt {
            match self.felt.get_mut(key) {
                Some(sum) => sum.latency_us.add(&felt.latency_us).context("latencies of one kind")?,
                None => {
                    self.felt.insert(key.clone(), felt.clone());
                }
            }
        }
        Ok(())
    }
}

fn count_miss(misses: &mut BTreeMap<MissKind, Misses>, phase: &str, miss: Miss) {
    let kind = MissKind { phase: phase.to_owned(), node: miss.node, cause: miss.cause };
    misses.entry(kind).or_insert_with(|| Misses { count: 0, example: miss.message }).count += 1;
}

/// What the workers share.
#[derive(Debug)]
struct Shared {
    phase: Mutex<(String, Instant)>,
    lasted: Mutex<Vec<(String, Duration)>>,
    stop: AtomicBool,
    next_image: AtomicUsize,
    images: Vec<Digit>,
    draw: Draw,
    pause_us: AtomicU64,
    /// Who is told which predictions were right.
    rewards: Option<mpsc::Sender<Reward>>,
}

impl Shared {
    fn draw(&self) -> &Digit {
        let position = match self.draw {
            Draw::InTurn => self.next_image.fetch_add(1, Ordering::Relaxed) % self.images.len(),
            Draw::WithReplacement => rand::random_range(0..self.images.len()),
        };
        &self.images[position]
    }

    fn phase(&self) -> String {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Running workers.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    ledgers: Vec<Arc<Mutex<Ledger>>>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts the workers in a first phase.
    pub fn start(targets: &Targets, images: Vec<Digit>, config: LoadConfig, phase: &str) -> Self {
        Self::start_telling(targets, images, config, phase, None)
    }

    /// The same, and every prediction's reward goes to `rewards`; its receiver may
    /// end before the workers do.
    pub fn start_telling(
        targets: &Targets,
        images: Vec<Digit>,
        config: LoadConfig,
        phase: &str,
        rewards: Option<mpsc::Sender<Reward>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            phase: Mutex::new((phase.to_owned(), Instant::now())),
            lasted: Mutex::default(),
            stop: AtomicBool::new(false),
            next_image: AtomicUsize::new(0),
            images,
            draw: config.draw,
            pause_us: AtomicU64::new(micros(config.pause)),
            rewards,
        });
        let mut ledgers = Vec::new();
        let mut workers = Vec::new();
        for worker in 0..targets.count() * config.workers_per_node {
            let ledger = Arc::new(Mutex::new(Ledger::default()));
            let home = worker % targets.count();
            let caller = Caller::new(targets.clone(), home);
            workers.push(tokio::spawn(work(Arc::clone(&shared), Arc::clone(&ledger), caller, home)));
            ledgers.push(ledger);
        }
        Self { shared, ledgers, workers }
    }

    /// From now on counts belong to another phase.
    pub fn phase(&self, name: &str) {
        let mut phase = self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let (ended, since) = std::mem::replace(&mut *phase, (name.to_owned(), Instant::now()));
        let mut lasted = self.shared.lasted.lock().unwrap_or_else(PoisonError::into_inner);
        lasted.push((ended, since.elapsed()));
    }

    /// From now on workers wait so long between an answer and the next request.
    pub fn pause(&self, pause: Duration) {
        self.shared.pause_us.store(micros(pause), Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn ledger(&self) -> Result<Ledger> {
        let mut sum = Ledger::default();
        for ledger in &self.ledgers {
            sum.add(&ledger.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        sum.lasted = self.shared.lasted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(sum)
    }

    /// Lets each worker finish its request, and answers the counts.
    pub async fn stop(mut self) -> Result<Ledger> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in std::mem::take(&mut self.workers) {
            worker.await.context("a worker has panicked")??;
        }
        self.phase("end");
        self.ledger()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.abort();
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn work(
    shared: Arc<Shared>,
    ledger: Arc<Mutex<Ledger>>,
    mut caller: Caller,
    home: usize,
) -> Result<()> {
    let locked = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
    while !shared.stop.load(Ordering::Relaxed) {
        let image = shared.draw();
        let begun_in = shared.phase();
        let begun = Instant::now();
        locked().sent += 1;
        let answer = caller
            .infer(&image.request(), |miss| {
                // Counted where it happened, which may be later than where it began.
                count_miss(&mut locked().retried, &shared.phase(), miss);
            })
            .await;
        let latency_us = micros(begun.elapsed()).clamp(1, LATENCY_MAX_US);
        match answer {
            Ok(response) => {
                let prediction = Prediction::read(&response)?;
                let correct = prediction.label == i64::from(image.label);
                count_answer(&mut locked(), begun_in, home, &prediction, correct, latency_us)?;
                if let Some(rewards) = shared.rewards.as_ref().filter(|_| !prediction.rollout.is_empty()) {
                    // Nobody listens any more: the rollouts are over.
                    let _ = rewards.send(Reward { decision: prediction.decision, correct }).await;
                }
            }
            Err(miss) => count_miss(&mut locked().failed, &shared.phase(), miss),
        }
        let pause_us = shared.pause_us.load(Ordering::Relaxed);
        if pause_us > 0 {
            tokio::time::sleep(Duration::from_micros(pause_us)).await;
        }
    }
    Ok(())
}

fn count_answer(
    ledger: &mut Ledger,
    begun_in: String,
    home: usize,
    prediction: &Prediction,
    correct: bool,
    latency_us: u64,
) -> Result<()> {
    ledger.answered += 1;
    ledger.newest_epoch = ledger.newest_epoch.max(prediction.epoch);
    let served = ledger.served.entry((begun_in.clone(), prediction.version.clone())).or_default();
    served.count += 1;
    served.correct += u64::from(correct);
    let felt = match ledger.felt.entry((begun_in, home)) {
        std::collections::btree_map::Entry::Occupied(felt) => felt.into_mut(),
        std::collections::btree_map::Entry::Vacant(none) => none.insert(Felt::new()?),
    };
    felt.latency_us.saturating_record(latency_us);
    Ok(())
}
