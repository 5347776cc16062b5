//! One thread of the generator: an event loop of its own that keeps its share of
//! the clients busy, or sends its share of the arrivals.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::BenchError;
use crate::clock::Clock;
use crate::connection::{Connection, GrpcConnection, RestConnection};
use crate::load::{Arrivals, LoadSpec, Protocol, Spacing};
use crate::pacer::Pacer;
use crate::payload::Payload;
use crate::recorder::Recorder;
use crate::schedule::Schedule;

/// Beyond the timeout of requests, for what is still under way at the end.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What a thread is told.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) server: Arc<str>,
    pub(crate) payload: Arc<Payload>,
    pub(crate) load: Arc<LoadSpec>,
    pub(crate) recorder: Arc<Mutex<Recorder>>,
    /// Requests under way, of all threads.
    pub(crate) in_flight: Arc<AtomicUsize>,
    pub(crate) thread: usize,
    pub(crate) threads: usize,
}

impl Task {
    /// This thread's part of a count.
    fn share(&self, count: usize) -> usize {
        count / self.threads + usize::from(self.thread < count % self.threads)
    }

    fn record(&self, work: impl FnOnce(&mut Recorder)) {
        work(&mut self.recorder.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn one_request(&self, connection: &mut Connection, clock: &Clock, intended: Duration, turn: usize) {
        let request = self.payload.request(turn);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let outcome = connection.call(request, self.load.timeout).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.record(|recorder| recorder.record(clock, intended, outcome));
    }
}

/// Connections of one thread, dialled before the clock starts.
pub(crate) enum Connections {
    /// Shared by all requests, in turn.
    Grpc(Vec<GrpcConnection>),
    /// Each used by one request at a time.
    Rest(Vec<RestConnection>),
}

/// Of an open loop over REST, before it needs more.
const REST_CONNECTIONS_AT_START: usize = 8;

/// Dials.
pub(crate) async fn connect(task: &Task) -> Result<Connections, BenchError> {
    let server = &task.server;
    if task.payload.protocol() == Protocol::Grpc {
        let mut connections = Vec::new();
        for _ in 0..task.share(task.load.connections_of_grpc()).max(1) {
            connections.push(GrpcConnection::connect(server).await?);
        }
        return Ok(Connections::Grpc(connections));
    }
    let wanted = match task.load.arrivals {
        Arrivals::Closed { clients } => task.share(clients),
        Arrivals::Open { in_flight_max, .. } => task.share(in_flight_max).clamp(1, REST_CONNECTIONS_AT_START),
    };
    let mut connections = Vec::new();
    for _ in 0..wanted {
        connections.push(RestConnection::connect(server).await?);
    }
    Ok(Connections::Rest(connections))
}

/// Sends until the clock says that it is over, and waits for what is under way.
pub(crate) async fn run(task: Task, connections: Connections, clock: Arc<Clock>) -> io::Result<()> {
    match task.load.arrivals {
        Arrivals::Closed { clients } => closed_loop(task, connections, clock, clients).await,
        Arrivals::Open { rate, spacing, in_flight_max } => {
            open_loop(task, connections, clock, rate, spacing, in_flight_max).await?;
        }
    }
    Ok(())
}

async fn closed_loop(task: Task, connections: Connections, clock: Arc<Clock>, clients: usize) {
    let of_clients: Vec<Connection> = match connections {
        Connections::Grpc(shared) => {
            shared.into_iter().cycle().take(task.share(clients)).map(Connection::Grpc).collect()
        }
        Connections::Rest(own) => own.into_iter().map(Connection::Rest).collect(),
    };
    let mut running = JoinSet::new();
    for (client, mut connection) in of_clients.into_iter().enumerate() {
        let (task, clock) = (task.clone(), clock.clone());
        running.spawn(async move {
            let mut turn = client;
            loop {
                let sent = clock.now();
                if clock.is_over(sent) {
                    return;
                }
                task.one_request(&mut connection, &clock, sent, turn).await;
                turn = turn.wrapping_add(1);
            }
        });
    }
    running.join_all().await;
}

async fn open_loop(
    task: Task,
    connections: Connections,
    clock: Arc<Clock>,
    rate: f64,
    spacing: Spacing,
    in_flight_max: usize,
) -> io::Result<()> {
    let pacer = Pacer::new()?;
    let places = task.share(in_flight_max).max(1);
    let free_places = Arc::new(Semaphore::new(places));
    let pool = Arc::new(Pool::new(connections));
    let mut schedule = Schedule::of_thread(rate, spacing, task.thread, task.threads);
    let mut turn = task.thread;
    for intended in schedule.by_ref() {
        let due = async {
            pacer.sleep_until(clock.instant(intended)).await?;
            // Closed never: an error cannot happen.
            free_places.clone().acquire_owned().await.map_err(io::Error::other)
        };
        // Stopping and the end of the window interrupt a wait for a place as well.
        let place = tokio::select! {
            biased;
            place = due => place?,
            () = over(&clock) => {
                count_not_sent(&task, &clock, intended);
                break;
            }
        };
        let now = clock.now();
        if clock.is_over(now) {
            count_not_sent(&task, &clock, intended);
            break;
        }
        if clock.is_measured(intended) {
            task.record(|recorder| recorder.record_lag(now.saturating_sub(intended)));
        }
        let (task, clock, pool) = (task.clone(), clock.clone(), pool.clone());
        tokio::spawn(async move {
            if let Some(mut connection) = pool.take(&task, &clock, intended, turn).await {
                task.one_request(&mut connection, &clock, intended, turn).await;
                pool.put_back(connection);
            }
            drop(place);
        });
        turn = turn.wrapping_add(1);
    }
    // What was meant for the window and had no place in it.
    let left = schedule.take_while(|intended| !clock.is_over(*intended));
    let not_sent = left.filter(|intended| *intended >= clock.begin).count() as u64;
    task.record(|recorder| recorder.not_sent += not_sent);
    let all_places = u32::try_from(places).unwrap_or(u32::MAX);
    // Whatever has not ended by then never will; its requests are not counted.
    let _ = tokio::time::timeout(task.load.timeout + DRAIN_GRACE, free_places.acquire_many(all_places)).await;
    Ok(())
}

/// Ends when the clock does.
async fn over(clock: &Clock) {
    /// How soon a stop is noticed by a loop that waits.
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    loop {
        let now = clock.now();
        if clock.is_over(now) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY.min(clock.end().saturating_sub(now))).await;
    }
}

fn count_not_sent(task: &Task, clock: &Clock, intended: Duration) {
    if clock.is_measured(intended) {
        task.record(|recorder| recorder.not_sent += 1);
    }
}

/// Where an open loop's requests get their connections.
enum Pool {
    Grpc(Vec<GrpcConnection>),
    /// The idle ones; the places bound how many there are in all.
    Rest(Mutex<Vec<RestConnection>>),
}

impl Pool {
    fn new(connections: Connections) -> Self {
        match connections {
            Connections::Grpc(shared) => Self::Grpc(shared),
            Connections::Rest(idle) => Self::Rest(Mutex::new(idle)),
        }
    }

    /// `None`: none could be made, which is recorded.
    async fn take(&self, task: &Task, clock: &Clock, intended: Duration, turn: usize) -> Option<Connection> {
        match self {
            Self::Grpc(shared) => Some(Connection::Grpc(shared[turn % shared.len()].clone())),
            Self::Rest(idle) => {
                let idle = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                if let Some(connection) = idle {
                    return Some(Connection::Rest(connection));
                }
                match RestConnection::connect(&task.server).await {
                    Ok(connection) => Some(Connection::Rest(connection)),
                    Err(error) => {
                        let failure = crate::connection::Failure::connection(error);
                        task.record(|recorder| recorder.record(clock, intended, Err(failure)));
                        None
                    }
                }
            }
        }
    }

    fn put_back(&self, connection: Connection) {
        if let (Self::Rest(idle), Connection::Rest(connection)) = (self, connection) {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
