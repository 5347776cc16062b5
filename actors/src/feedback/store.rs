//! The one thread that owns the files. Whoever wants something kept waits for
//! it; all that came meanwhile is written with one flush.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use starling_raft::state::NodeId;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, oneshot};

use super::FeedbackError;
use super::disk::{Disk, FolderDisk};
use super::home::{Home, HomeLimits, Moment, Taken};
use super::item::{Feedback, Verdict};
use super::learnt::Sealed;
use super::outbox::{Full, Outbox, Parcel};
use super::replicated::Replicated;
use super::segments::{LaneError, Position};

/// Items that wait for the thread; more are refused.
const ITEMS_WAITING_MAX: usize = 100_000;
const ORDERS_WAITING_MAX: usize = 4_096;
/// Items that are written with one flush.
const ITEMS_PER_FLUSH_MAX: usize = 50_000;
/// Between marks of how far this node has counted its decisions, checkpoints and
/// the forgetting of old ones.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(10);
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Where and how much.
#[derive(Debug, Clone)]
pub(super) struct StoreConfig {
    pub(super) folder: std::path::PathBuf,
    pub(super) is_durable: bool,
    pub(super) boot: u32,
    pub(super) home: HomeLimits,
    pub(super) outbox_bytes_max: u64,
}

/// How many decisions this node has made since its start.
pub type DecisionCount = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    pub(super) store_bytes: u64,
    pub(super) outbox_bytes: u64,
}

enum Order {
    Take { items: Vec<Feedback>, reply: oneshot::Sender<Result<Vec<Taken>, FeedbackError>> },
    KeepAside { items: Vec<(Feedback, Verdict)>, reply: oneshot::Sender<()> },
    Put { home: NodeId, items: Vec<Feedback>, reply: oneshot::Sender<Result<(), Full>> },
    Waiting { reply: oneshot::Sender<Vec<NodeId>> },
    First { home: NodeId, items_max: usize, reply: oneshot::Sender<Option<Parcel>> },
    Delivered { home: NodeId, until: Position },
    GoOnAfter { number: u64 },
    Seal { reply: oneshot::Sender<Option<Sealed>> },
    Committed { number: u64 },
    Sizes { reply: oneshot::Sender<Sizes> },
    End { reply: oneshot::Sender<()> },
}

/// Speaks to the thread. Cheap to clone; the thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Store {
    orders: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    failure: Arc<OnceLock<String>>,
}

impl Store {
    /// Opens the files, and starts the thread.
    pub(super) fn start(
        config: StoreConfig,
        replicated: Arc<dyn Replicated>,
        decided: DecisionCount,
    ) -> Result<Self, LaneError> {
        let disk = |name: &str| folder(&config.folder.join(name), config.is_durable);
        let home = Home::open(disk("home")?, config.boot, config.home)?;
        let outbox = Outbox::open(disk("outbox")?, config.outbox_bytes_max)?;
        let (orders, receiver) = mpsc::channel(ORDERS_WAITING_MAX);
        let failure = Arc::new(OnceLock::new());
        let writer = Writer { home, outbox, replicated, decided };
        let noted = Arc::clone(&failure);
        std::thread::Builder::new().name("feedback".to_owned()).spawn(move || {
            if let Err(error) = writer.run(receiver) {
                tracing::error!(%error, "feedback cannot be kept any more; it is refused until this node is started again");
                let _ = noted.set(error.to_string());
            }
        })?;
        Ok(Self { orders, room: Arc::new(Semaphore::new(ITEMS_WAITING_MAX)), failure })
    }

    /// Judges feedback about decisions of this node. What it returns is on disk.
    pub(super) async fn take(&self, items: Vec<Feedback>) -> Result<Vec<Taken>, FeedbackError> {
        let _room = self.room_for(items.len())?;
        self.ask(|reply| Order::Take { items, reply }).await?
    }

    /// Keeps what no home can judge.
    pub(super) async fn keep_aside(&self, items: Vec<(Feedback, Verdict)>) -> Result<(), FeedbackError> {
        let _room = self.room_for(items.len())?;
        self.ask(|reply| Order::KeepAside { items, reply }).await
    }

    /// Keeps all of it for its home, or none.
    pub(super) async fn put(&self, home: NodeId, items: Vec<Feedback>) -> Result<(), FeedbackError> {
        let _room = self.room_for(items.len())?;
        let put = self.ask(|reply| Order::Put { home, items, reply }).await?;
        put.map_err(|full| FeedbackError::Overloaded {
            text: full.to_string(),
            retry_after: Duration::from_secs(5),
        })
    }

    /// Homes that something waits for.
    pub(super) async fn waiting(&self) -> Result<Vec<NodeId>, FeedbackError> {
        self.ask(|reply| Order::Waiting { reply }).await
    }

    /// What waits for a home, the oldest first.
    pub(super) async fn first(
        &self,
        home: NodeId,
        items_max: usize,
    ) -> Result<Option<Parcel>, FeedbackError> {
        self.ask(|reply| Order::First { home, items_max, reply }).await
    }

    /// The home has it.
    pub(super) async fn delivered(&self, home: NodeId, until: Position) -> Result<(), FeedbackError> {
        self.tell(Order::Delivered { home, until }).await
    }

    /// See [`Home::go_on_after`].
    pub(super) async fn go_on_after(&self, number: u64) -> Result<(), FeedbackError> {
        self.tell(Order::GoOnAfter { number }).await
    }

    /// The next delta for the log, if anything was credited; durable.
    pub(super) async fn seal(&self) -> Result<Option<Sealed>, FeedbackError> {
        self.ask(|reply| Order::Seal { reply }).await
    }

    /// The log has it.
    pub(super) async fn committed(&self, number: u64) -> Result<(), FeedbackError> {
        self.tell(Order::Committed { number }).await
    }

    /// What the files take.
    pub(super) async fn sizes(&self) -> Result<Sizes, FeedbackError> {
        self.ask(|reply| Order::Sizes { reply }).await
    }

    /// This node decides no more: marks that, and ends the thread.
    pub(super) async fn end(&self) -> Result<(), FeedbackError> {
        self.ask(|reply| Order::End { reply }).await
    }

    fn room_for(&self, items: usize) -> Result<tokio::sync::OwnedSemaphorePermit, FeedbackError> {
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(items) {
            Ok(room) => Ok(room),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => Err(FeedbackError::Overloaded {
                text: format!("{ITEMS_WAITING_MAX} pieces of feedback wait for the disk of this node"),
                retry_after: RETRY_AFTER,
            }),
        }
    }

    async fn tell(&self, order: Order) -> Result<(), FeedbackError> {
        self.orders.send(order).await.map_err(|_| self.why_gone())
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, FeedbackError> {
        let (reply, answer) = oneshot::channel();
        self.tell(order(reply)).await?;
        answer.await.map_err(|_| self.why_gone())
    }

    fn why_gone(&self) -> FeedbackError {
        let reason = self.failure.get().map_or("this node is stopping", String::as_str);
        FeedbackError::Unavailable(format!("feedback cannot be kept on this node: {reason}"))
    }
}

fn folder(path: &Path, is_durable: bool) -> io::Result<FolderDisk> {
    FolderDisk::open(path, is_durable)
}

/// The thread.
struct Writer<D> {
    home: Home<D>,
    outbox: Outbox<D>,
    replicated: Arc<dyn Replicated>,
    decided: DecisionCount,
}

/// An answer that waits for the flush.
type Answering = Box<dyn FnOnce() + Send>;

impl<D: Disk> Writer<D> {
    /// Until an error, after which nothing is known of the files, or the end.
    fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), LaneError> {
        let mut last_housekeeping = Instant::now();
        self.keep_house()?;
        while let Some(order) = orders.blocking_recv() {
            let mut answers: Vec<Answering> = Vec::new();
            let mut ending = None;
            let mut items = 0;
            let mut next = Some(order);
            while let Some(order) = next.take() {
                items += order.items();
                match order {
                    Order::End { reply } => ending = Some(reply),
                    order => answers.extend(self.carry_out(order)?),
                }
                if items < ITEMS_PER_FLUSH_MAX && ending.is_none() {
                    next = orders.try_recv().ok();
                }
            }
            self.home.sync()?;
            self.outbox.sync()?;
            answers.into_iter().for_each(|answer| answer());
            if let Some(reply) = ending {
                let view = self.replicated.view();
                self.home.end(view.log_time, (self.decided)())?;
                let _ = reply.send(());
                return Ok(());
            }
            if last_housekeeping.elapsed() >= HOUSEKEEPING_INTERVAL {
                self.keep_house()?;
                last_housekeeping = Instant::now();
            }
        }
        Ok(())
    }

    fn keep_house(&mut self) -> Result<(), LaneError> {
        self.home.keep_house(self.replicated.view().log_time, (self.decided)())
    }

    /// Whoever asked may have gone: that is no error.
    fn carry_out(&mut self, order: Order) -> Result<Option<Answering>, LaneError> {
        fn later<T: Send + 'static>(reply: oneshot::Sender<T>, answer: T) -> Option<Answering> {
            Some(Box::new(move || drop(reply.send(answer))))
        }
        Ok(match order {
            Order::Take { items, reply } => later(reply, self.take(&items)?),
            Order::KeepAside { items, reply } => {
                let now = unix_micros();
                items.iter().for_each(|(feedback, verdict)| self.home.keep_aside(feedback, *verdict, now));
                later(reply, ())
            }
            Order::Put { home, items, reply } => {
                let put = self.outbox.put(home, &items, unix_micros())?;
                later(reply, put)
            }
            Order::Waiting { reply } => later(reply, self.outbox.homes()),
            Order::First { home, items_max, reply } => {
                self.outbox.sync()?;
                later(reply, self.outbox.first(home, items_max)?)
            }
            Order::Delivered { home, until } => {
                self.outbox.delivered(home, until)?;
                None
            }
            Order::GoOnAfter { number } => {
                self.home.go_on_after(number)?;
                None
            }
            Order::Seal { reply } => later(reply, self.home.seal()?.cloned()),
            Order::Committed { number } => {
                self.home.committed(number)?;
                None
            }
            Order::Sizes { reply } => {
                let sizes = Sizes { store_bytes: self.home.bytes(), outbox_bytes: self.outbox.bytes() };
                later(reply, sizes)
            }
            Order::End { .. } => None,
        })
    }

    fn take(&mut self, items: &[Feedback]) -> Result<Result<Vec<Taken>, FeedbackError>, LaneError> {
        if self.home.has_lost_its_place() {
            return Ok(Err(FeedbackError::Unavailable(
                "this node has no memory of its rewards and asks the cluster where it was; try again"
                    .to_owned(),
            )));
        }
        if self.home.is_full() {
            return Ok(Err(FeedbackError::Overloaded {
                text: "the log does not take what was counted (is there a quorum?)".to_owned(),
                retry_after: Duration::from_secs(1),
            }));
        }
        let view = self.replicated.view();
        let moment = Moment {
            ledger: &*view.ledger,
            log_time: view.log_time,
            applied: view.applied,
            unix_micros: unix_micros(),
            decided: (self.decided)(),
        };
        self.home.take(items, moment).map(Ok)
    }
}

impl Order {
    fn items(&self) -> usize {
        match self {
            Self::Take { items, .. } | Self::Put { items, .. } => items.len(),
            Self::KeepAside { items, .. } => items.len(),
            _ => 0,
        }
    }
}

fn unix_micros() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
