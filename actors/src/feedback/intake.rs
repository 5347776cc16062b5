//! The way of feedback: judged here if this node decided, else brought to the
//! node that did, or kept until that can be reached.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use starling_raft::state::NodeId;
use starling_raft::state::members::NODE_ID_OFFSET;
use tokio::sync::watch;

use super::FeedbackError;
use super::home::Taken;
use super::item::{Answer, Feedback, ITEMS_MAX, Verdict};
use super::metrics::FeedbackMetrics;
use super::replicated::{Belonging, Carrier, Replicated};
use super::store::Store;

/// How long another node is waited for before its feedback is kept here.
const CARRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long this node may need to catch up before feedback is kept for later.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that did not answer is not asked again for so long.
const SILENCE: Duration = Duration::from_secs(1);

/// Takes feedback on one node.
pub(super) struct Intake {
    pub(super) this_node: NodeId,
    pub(super) store: Store,
    pub(super) replicated: Arc<dyn Replicated>,
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) committed: watch::Receiver<u64>,
    pub(super) metrics: FeedbackMetrics,
    pub(super) silent: Mutex<HashMap<NodeId, Instant>>,
}

/// Feedback of one request that is about decisions of one node; where in the
/// request each piece stood.
#[derive(Default)]
struct Share {
    places: Vec<usize>,
    items: Vec<Feedback>,
}

impl Intake {
    /// One answer per item, in order; what could not even be read is answered
    /// already. An error: some of it may have been taken, and all of it may be
    /// sent again. With `wait_counted`, waits until what is credited is
    /// committed, or until the deadline.
    pub(super) async fn record(
        &self,
        items: Vec<Result<Feedback, Answer>>,
        wait_counted: bool,
        deadline: Instant,
    ) -> Result<Vec<Answer>, FeedbackError> {
        if items.len() > ITEMS_MAX {
            return Err(FeedbackError::InvalidArgument(format!(
                "{} pieces of feedback in one request; send at most {ITEMS_MAX}",
                items.len()
            )));
        }
        let mut answers = vec![Answer::plain(Verdict::Invalid); items.len()];
        let mut shares: BTreeMap<NodeId, Share> = BTreeMap::new();
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Ok(feedback) => {
                    let share = shares.entry(feedback.decision.node).or_default();
                    share.places.push(place);
                    share.items.push(feedback);
                }
                Err(answer) => {
                    self.metrics.count(answer.verdict, 1);
                    answers[place] = answer;
                }
            }
        }
        let parts = shares.into_iter().map(|(home, share)| async move {
            let part = self.record_at(home, share.items, wait_counted, deadline).await;
            (share.places, part)
        });
        let mut failure = None;
        for (places, part) in join_all(parts).await {
            match part {
                Ok(part) => places.into_iter().zip(part).for_each(|(place, answer)| answers[place] = answer),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(answers),
            Some(error) => {
                self.metrics.refused();
                Err(error)
            }
        }
    }

    async fn record_at(
        &self,
        home: NodeId,
        items: Vec<Feedback>,
        wait_counted: bool,
        deadline: Instant,
    ) -> Result<Vec<Answer>, FeedbackError> {
        match self.settled_belonging(home).await? {
            Belonging::Itself => match self.record_here(items.clone(), wait_counted, deadline).await {
                Err(FeedbackError::Behind) => self.keep_for(home, items).await,
                other => other,
            },
            Belonging::Member => self.send_or_keep(home, items, wait_counted, deadline).await,
            Belonging::Removed => {
                let reason = format!("it was decided by node {home}, which has left the cluster for good");
                self.keep_aside(items, Verdict::Late, &reason).await
            }
            Belonging::Stranger => {
                let reason = format!("there never was a node {home} in this cluster");
                self.keep_aside(items, Verdict::Unknown, &reason).await
            }
        }
    }

    /// Feedback about this node's own decisions. [`FeedbackError::Behind`]: this
    /// node has not applied yet by what it decided before its last restart.
    pub(super) async fn record_here(
        &self,
        items: Vec<Feedback>,
        wait_counted: bool,
        deadline: Instant,
    ) -> Result<Vec<Answer>, FeedbackError> {
        let newest = items.iter().map(|item| item.decision.epoch.get()).max().unwrap_or_default();
        if newest > self.replicated.view().applied.get() {
            // What is in the future even then was never an epoch.
            self.replicated.catch_up(CATCH_UP_TIMEOUT).await.map_err(|_| FeedbackError::Behind)?;
        }
        let began = Instant::now();
        let taken = self.store.take(items).await?;
        self.metrics.keep_seconds.observe(began.elapsed().as_secs_f64());
        self.metrics.count_answers(taken.iter().map(|taken| &taken.answer));
        let committed = if wait_counted { self.wait_committed(&taken, deadline).await } else { 0 };
        let answers = taken.into_iter().map(|Taken { answer, delta }| Answer {
            counted: delta.is_some_and(|delta| delta <= committed),
            ..answer
        });
        Ok(answers.collect())
    }

    /// The last delta that is committed once all of these are, or at the deadline.
    async fn wait_committed(&self, taken: &[Taken], deadline: Instant) -> u64 {
        let mut committed = self.committed.clone();
        let last = taken.iter().filter_map(|taken| taken.delta).max().unwrap_or_default();
        let all = committed.wait_for(|committed| *committed >= last);
        let _ = tokio::time::timeout_at(deadline.into(), all).await;
        *self.committed.borrow()
    }

    async fn send_or_keep(
        &self,
        home: NodeId,
        items: Vec<Feedback>,
        wait_counted: bool,
        deadline: Instant,
    ) -> Result<Vec<Answer>, FeedbackError> {
        if self.is_silent(home) {
            return self.keep_for(home, items).await;
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = if wait_counted { remaining } else { remaining.min(CARRY_TIMEOUT) };
        match self.carrier.carry(home, items.clone(), wait_counted, timeout).await {
            Ok(answers) => Ok(answers),
            Err(reason) => {
                tracing::debug!(%home, reason, "feedback is kept until the node that decided can be reached");
                self.note_silent(home);
                self.keep_for(home, items).await
            }
        }
    }

    async fn keep_for(&self, home: NodeId, items: Vec<Feedback>) -> Result<Vec<Answer>, FeedbackError> {
        let count = items.len();
        self.store.put(home, items).await?;
        self.metrics.count(Verdict::Stored, count as u64);
        let reason = format!("node {home}, which decided, will judge it once it can");
        Ok(vec![Answer::because(Verdict::Stored, reason); count])
    }

    pub(super) async fn keep_aside(
        &self,
        items: Vec<Feedback>,
        verdict: Verdict,
        reason: &str,
    ) -> Result<Vec<Answer>, FeedbackError> {
        let answers = vec![Answer::because(verdict, reason); items.len()];
        self.store.keep_aside(items.into_iter().map(|item| (item, verdict)).collect()).await?;
        self.metrics.count_answers(&answers);
        Ok(answers)
    }

    /// A node that joined a moment ago may not be known here yet.
    async fn settled_belonging(&self, node: NodeId) -> Result<Belonging, FeedbackError> {
        let belonging = self.replicated.belonging(node);
        let joined_at = node.get().checked_sub(NODE_ID_OFFSET);
        let may_be_new = joined_at.is_some_and(|index| index > self.replicated.view().applied.get());
        if belonging != Belonging::Stranger || !may_be_new {
            return Ok(belonging);
        }
        match self.replicated.catch_up(CATCH_UP_TIMEOUT).await {
            Ok(()) => Ok(self.replicated.belonging(node)),
            Err(reason) => Err(FeedbackError::Unavailable(format!(
                "node {node}, which decided, is not known here, and this node may be behind: {reason}"
            ))),
        }
    }

    fn is_silent(&self, home: NodeId) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(&home).is_some_and(|since| since.elapsed() < SILENCE)
    }

    fn note_silent(&self, home: NodeId) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.insert(home, Instant::now());
    }

    /// Whether this is the home of a decision.
    pub(super) fn is_home(&self, feedback: &Feedback) -> bool {
        feedback.decision.node == self.this_node
    }
}
