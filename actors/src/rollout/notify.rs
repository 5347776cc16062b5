//! Tells webhooks of promotion, rollback and hold: from the leader, in the order
//! of the history, at least once. A new leader goes on from the last entry that it
//! knows was told; the id of a notification is its entry's index, so whoever is
//! told twice can notice.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use starling_raft::consensus::Consensus;
use starling_raft::flock::EventReader;
use starling_raft::history::HistoryRecord;
use starling_raft::state::{Event, LogIndex, RolloutEvent, State};

use super::metrics::RolloutMetrics;
use super::notified::NotifiedMark;
use super::plan::ending_in_words;
use super::webhook::Webhooks;
use crate::inference::backoff::Backoff;

/// Events that are read at once.
const PAGE: usize = 512;
/// Webhooks that are told at once.
const AT_ONCE_MAX: usize = 16;
const ATTEMPTS_MAX: u32 = 6;
const RETRY_WAIT_MIN: Duration = Duration::from_millis(250);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(8);
/// As a safety net, and after an error.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who tells, and how far it has come.
#[derive(Clone)]
pub struct Notifier {
    /// To know whether this node leads.
    pub consensus: Consensus,
    /// What happened.
    pub events: EventReader,
    /// Up to where webhooks were told.
    pub mark: Arc<NotifiedMark>,
    /// Counts outcomes.
    pub metrics: Arc<RolloutMetrics>,
    /// Sends.
    pub webhooks: Webhooks,
}

/// One event, for one webhook.
#[derive(Debug, Clone, PartialEq)]
struct Notification {
    url: String,
    body: String,
}

impl Notifier {
    /// Follows the history without end, and tells while this node leads.
    pub async fn run(self) {
        let mut applied = self.consensus.watch_applied();
        loop {
            applied.mark_unchanged();
            if self.consensus.status().is_leader
                && let Err(error) = self.catch_up().await
            {
                tracing::warn!(%error, "the history cannot be read for webhooks; trying again");
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Tells of everything up to what is applied now.
    async fn catch_up(&self) -> std::io::Result<()> {
        loop {
            let applied = self.consensus.applied();
            if self.mark.get() >= applied.index.get() || !self.consensus.status().is_leader {
                return Ok(());
            }
            let page = self.events.read(LogIndex::new(self.mark.get() + 1), PAGE).await?;
            let told: Vec<Notification> =
                page.iter().flat_map(|record| notifications(record, &applied.state)).collect();
            let sent = told.into_iter().map(|notification| self.tell(notification));
            futures::stream::iter(sent).buffer_unordered(AT_ONCE_MAX).collect::<Vec<()>>().await;
            // Without events in between, everything that is applied is done.
            let through = page.last().map_or(applied.index, |last| last.log_index);
            self.mark.advance(through.get());
        }
    }

    /// Until it is taken, or as often as is bearable.
    async fn tell(&self, notification: Notification) {
        let mut backoff = Backoff::new(RETRY_WAIT_MIN, RETRY_WAIT_MAX);
        let outcome = |outcome: &str| self.metrics.webhooks.with_label_values(&[outcome]).inc();
        for attempt in 1..=ATTEMPTS_MAX {
            match self.webhooks.post(&notification.url, &notification.body).await {
                Ok(()) => return outcome("delivered"),
                Err(error) => {
                    tracing::warn!(url = notification.url, attempt, %error, "a webhook was not told");
                    if attempt == ATTEMPTS_MAX || !error.is_worth_another_try() {
                        break;
                    }
                }
            }
            outcome("retried");
            tokio::time::sleep(backoff.next_wait()).await;
        }
        outcome("given_up");
    }
}

/// What is to be told of one event.
fn notifications(record: &HistoryRecord, state: &State) -> Vec<Notification> {
    let Event::Rollout(event) = &record.event else { return Vec::new() };
    let (happened, why, evidence) = match event {
        RolloutEvent::RolloutFinished { ending, why, evidence, .. } => {
            (ending_in_words(*ending), why, evidence)
        }
        RolloutEvent::RolloutHeld { why, evidence, .. } => ("held", why, evidence),
        _ => return Vec::new(),
    };
    let rollout = event.rollout().and_then(|name| state.rollouts.get(name.as_str()));
    let Some(rollout) = rollout.filter(|rollout| rollout.started_at <= record.log_index) else {
        return Vec::new();
    };
    let body = json!({
        "id": record.log_index,
        "rollout": rollout.name,
        "model": rollout.spec.model,
        "strategy": rollout.spec.strategy_name(),
        "event": happened,
        "why": why,
        "evidence": evidence,
        "index": record.log_index,
        "unixMicros": record.wall_time,
        "by": record.principal.as_str(),
    });
    let to = |url: &String| Notification { url: url.clone(), body: body.to_string() };
    rollout.spec.webhooks.iter().map(to).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_raft::state::{EntryContext, LogTime, Principal, RequestId, RolloutCommand, WallTime};
    use uuid::Uuid;

    use super::super::testing::{CANDIDATE, World, canary, max_error_rate};
    use super::*;

    #[test]
    fn a_rollback_is_told_with_its_reason_and_numbers_and_other_events_are_not() {
        let mut spec = canary(vec![max_error_rate(10_000)]);
        spec.webhooks = vec!["http://one.example/hook".to_owned(), "http://two.example/hook".to_owned()];
        let mut world = World::start(spec);
        let name = world.rollout().name.clone();
        let paused = world.apply(RolloutCommand::Pause { name }).unwrap();
        world.requests(CANDIDATE, 12, 12, Duration::from_millis(1));
        let command = world.look().command.unwrap();
        let rolled_back = world.apply(command).unwrap();
        let context = EntryContext {
            log_index: LogIndex::new(world.cluster.index),
            log_time: LogTime::from_micros(5),
            wall_time: WallTime::from_unix_micros(7),
            principal: Principal::named("node-3"),
            request_id: RequestId::new(Uuid::nil()),
        };
        let told =
            |event: &Event| notifications(&HistoryRecord::new(&context, event.clone()), &world.cluster.state);
        assert_eq!(told(&paused[0]), []);
        let told = told(&rolled_back[0]);
        let urls: Vec<&str> = told.iter().map(|notification| notification.url.as_str()).collect();
        assert_eq!(urls, ["http://one.example/hook", "http://two.example/hook"]);
        let body: serde_json::Value = serde_json::from_str(&told[0].body).unwrap();
        assert_eq!(body["event"], "rolled back");
        assert_eq!(body["id"], world.cluster.index);
        assert_eq!(body["evidence"][0]["what"], "errorRate");
        assert_eq!(body["evidence"][0]["value"], 1_000_000);
        assert!(body["why"].as_str().unwrap().starts_with("errorRate of v2 is 1 ("), "{body}");
    }
}
