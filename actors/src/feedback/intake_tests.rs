//! Several nodes with feedback between them, a log that can be cut off and
//! homes that cannot be reached.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use starling_raft::state::{LogIndex, LogTime, NodeId};

use super::item::{Answer, Feedback, Verdict};
use super::learnt::Sealed;
use super::ledger::Ledger;
use super::replicated::{Belonging, Carrier, NotTaken, Replicated, View};
use super::testing::{HOME, OneRollout, feedback};
use super::{FLUSH_INTERVAL_MIN, FeedbackConfig, FeedbackDesk, FeedbackError, PeerFeedbackService};

const OTHERS: [NodeId; 2] = [NodeId::new(1_003), NodeId::new(1_004)];
const GONE: NodeId = NodeId::new(1_002);
const NEVER: NodeId = NodeId::new(1_090);
const WAIT_MAX: Duration = Duration::from_secs(20);

/// The log of all nodes, and who can be reached.
#[derive(Default)]
struct World {
    marks: Mutex<HashMap<NodeId, u64>>,
    count: AtomicU64,
    entries: AtomicU64,
    has_no_quorum: AtomicBool,
    desks: Mutex<HashMap<NodeId, FeedbackDesk>>,
}

struct Seat {
    node: NodeId,
    world: Arc<World>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[tonic::async_trait]
impl Replicated for Seat {
    fn view(&self) -> View {
        let ledger: Arc<dyn Ledger> = Arc::new(OneRollout::default());
        View { ledger, log_time: LogTime::from_micros(1_000_000), applied: LogIndex::new(100) }
    }

    fn confirmed(&self) -> u64 {
        locked(&self.world.marks).get(&self.node).copied().unwrap_or_default()
    }

    fn belonging(&self, node: NodeId) -> Belonging {
        match node {
            node if node == self.node => Belonging::Itself,
            node if node == HOME || OTHERS.contains(&node) => Belonging::Member,
            GONE => Belonging::Removed,
            _ => Belonging::Stranger,
        }
    }

    async fn catch_up(&self, _timeout: Duration) -> Result<(), String> {
        match self.world.has_no_quorum.load(Ordering::SeqCst) {
            true => Err("no quorum".to_owned()),
            false => Ok(()),
        }
    }

    async fn propose(&self, sealed: &Sealed, _timeout: Duration) -> Result<(), NotTaken> {
        if self.world.has_no_quorum.load(Ordering::SeqCst) {
            return Err(NotTaken::NotNow("no quorum".to_owned()));
        }
        self.world.entries.fetch_add(1, Ordering::SeqCst);
        let mut marks = locked(&self.world.marks);
        let mark = marks.entry(self.node).or_default();
        if sealed.number > *mark {
            *mark = sealed.number;
            let count: i64 = sealed.delta.cells().map(|(_, sums)| sums.count).sum();
            self.world.count.fetch_add(count as u64, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Carrier for Seat {
    async fn carry(
        &self,
        home: NodeId,
        items: Vec<Feedback>,
        wait_counted: bool,
        timeout: Duration,
    ) -> Result<Vec<Answer>, String> {
        let desk = locked(&self.world.desks).get(&home).cloned().ok_or("nobody is there")?;
        let answers = desk.intake.record_here(items, wait_counted, Instant::now() + timeout).await;
        answers.map_err(|error| error.to_string())
    }
}

impl World {
    fn start_with(self: &Arc<Self>, node: NodeId, folder: &Path, outbox_bytes_max: u64) -> FeedbackDesk {
        let seat = Arc::new(Seat { node, world: Arc::clone(self) });
        let config = FeedbackConfig {
            folder: folder.join(node.to_string()),
            is_durable: true,
            horizon: Duration::from_secs(86_400),
            journal_bytes_max: 1 << 30,
            outbox_bytes_max,
            flush_interval: FLUSH_INTERVAL_MIN,
        };
        let (service, registry) = (PeerFeedbackService::default(), prometheus::Registry::new());
        let decided = Arc::new(|| 1_000_000);
        let desk =
            FeedbackDesk::start_with(node, 1, seat.clone(), seat, &service, decided, config, &registry)
                .unwrap();
        locked(&self.desks).insert(node, desk.clone());
        desk
    }

    fn start(self: &Arc<Self>, node: NodeId, folder: &Path) -> FeedbackDesk {
        self.start_with(node, folder, 1 << 20)
    }

    async fn leave(&self, node: NodeId) {
        let desk = locked(&self.desks).remove(&node).unwrap();
        desk.shutdown().await;
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    async fn wait_for_count(&self, count: u64) {
        let reached = async {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(WAIT_MAX, reached).await;
        assert!(reached.is_ok(), "{} of {count} rewards are counted", self.count());
    }
}

async fn tell(
    desk: &FeedbackDesk,
    items: &[Feedback],
    wait_counted: bool,
) -> Result<Vec<Answer>, FeedbackError> {
    let items = items.iter().cloned().map(Ok).collect();
    desk.record(items, wait_counted, Instant::now() + WAIT_MAX).await
}

fn verdicts(answers: &[Answer]) -> Vec<Verdict> {
    answers.iter().map(|answer| answer.verdict).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_feedback_to_all_nodes_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    let others = OTHERS.map(|node| world.start(node, folder.path()));
    let items: Vec<_> = (1..=50).map(feedback).collect();
    let (one, two, three) = tokio::join!(
        tell(&home, &items, false),
        tell(&others[0], &items, false),
        tell(&others[1], &items, false),
    );
    let answers = [one.unwrap(), two.unwrap(), three.unwrap()].concat();
    let recorded = answers.iter().filter(|answer| answer.verdict == Verdict::Recorded).count();
    let duplicates = answers.iter().filter(|answer| answer.verdict == Verdict::Duplicate).count();
    assert_eq!((recorded, duplicates), (50, 100));
    world.wait_for_count(50).await;
    let again = tell(&others[1], &items, true).await.unwrap();
    assert!(again.iter().all(|answer| answer.verdict == Verdict::Duplicate && answer.counted));
    assert_eq!(world.count(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_until_it_is_counted_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    world.start(HOME, folder.path());
    let other = world.start(OTHERS[0], folder.path());
    let answers = tell(&other, &[feedback(1)], true).await.unwrap();
    assert!(answers[0].counted);
    assert_eq!(world.count(), 1);
    assert!(!tell(&other, &[feedback(2)], false).await.unwrap()[0].counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_waits_for_a_home_that_cannot_be_reached_and_then_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let other = world.start(OTHERS[0], folder.path());
    let items: Vec<_> = (1..=20).map(feedback).collect();
    for _ in 0..2 {
        let answers = tell(&other, &items, false).await.unwrap();
        assert_eq!(verdicts(&answers), vec![Verdict::Stored; 20]);
        assert!(answers[0].reason.contains("node 1000"), "{}", answers[0].reason);
    }
    // The node that was told is started again as well.
    world.leave(OTHERS[0]).await;
    drop(other);
    world.start(OTHERS[0], folder.path());
    assert_eq!(world.count(), 0);
    let home = world.start(HOME, folder.path());
    world.wait_for_count(20).await;
    assert_eq!(verdicts(&tell(&home, &items[..1], true).await.unwrap()), [Verdict::Duplicate]);
    assert_eq!(world.count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let other = world.start_with(OTHERS[0], folder.path(), 1_000);
    let items: Vec<_> = (1..=20).map(feedback).collect();
    tell(&other, &items, false).await.unwrap();
    let refused = tell(&other, &items, false).await.unwrap_err();
    assert!(matches!(refused, FeedbackError::Overloaded { .. }));
    assert!(refused.to_string().contains("`feedback_outbox_bytes_max`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_that_are_gone_or_never_were_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    let of = |node| {
        let mut item = feedback(1);
        item.decision.node = node;
        item
    };
    let answers = tell(&home, &[of(GONE), of(NEVER), of(HOME)], false).await.unwrap();
    assert_eq!(verdicts(&answers), [Verdict::Late, Verdict::Unknown, Verdict::Recorded]);
    assert_eq!(answers[0].reason, "it was decided by node 1002, which has left the cluster for good");
    assert_eq!(answers[1].reason, "there never was a node 1090 in this cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_keeps_rewards_until_it_heals_and_they_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    tell(&home, &[feedback(1)], true).await.unwrap();
    world.has_no_quorum.store(true, Ordering::SeqCst);
    assert_eq!(verdicts(&tell(&home, &[feedback(2)], false).await.unwrap()), [Verdict::Recorded]);
    world.leave(HOME).await;
    drop(home);
    let home = world.start(HOME, folder.path());
    assert_eq!(verdicts(&tell(&home, &[feedback(2)], false).await.unwrap()), [Verdict::Duplicate]);
    assert_eq!(world.count(), 1);
    world.has_no_quorum.store(false, Ordering::SeqCst);
    world.wait_for_count(2).await;
    assert!(
        tell(&home, &[feedback(2), feedback(1)], true).await.unwrap().iter().all(|answer| answer.counted)
    );
    assert_eq!(world.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_the_future_waits_for_the_log_and_is_unknown_once_it_has_caught_up() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    let mut item = feedback(1);
    item.decision.epoch = starling_raft::state::Epoch::new(101);
    world.has_no_quorum.store(true, Ordering::SeqCst);
    assert_eq!(verdicts(&tell(&home, &[item.clone()], false).await.unwrap()), [Verdict::Stored]);
    world.has_no_quorum.store(false, Ordering::SeqCst);
    let answers = tell(&home, &[item], false).await.unwrap();
    assert_eq!(verdicts(&answers), [Verdict::Unknown]);
    assert_eq!(answers[0].reason, "its epoch 101 has not come yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_gets_at_most_four_entries_per_second_whatever_the_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    let began = Instant::now();
    let mut sequence = 0;
    while began.elapsed() < Duration::from_millis(1_200) {
        let items: Vec<_> = (sequence + 1..=sequence + 50).map(feedback).collect();
        sequence += 50;
        tell(&home, &items, false).await.unwrap();
    }
    world.wait_for_count(sequence).await;
    let (entries, quarters) =
        (world.entries.load(Ordering::SeqCst), began.elapsed().as_millis() as u64 / 250);
    assert!((2..=quarters + 1).contains(&entries), "{entries} entries in {quarters} quarters of a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_items_in_one_request_are_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let home = world.start(HOME, folder.path());
    let items = vec![feedback(1); 10_001];
    let refused = tell(&home, &items, false).await.unwrap_err();
    assert_eq!(refused.to_string(), "10001 pieces of feedback in one request; send at most 10000");
}
