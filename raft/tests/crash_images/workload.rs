//! What the recorded process does, and how it notes what it asked for and what was acknowledged.

use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, Entry, EntryPayload, LogId, Vote};
use starling_raft::log_store::{self, LogStore, LogStoreOptions};
use starling_raft::raft_types::{EnvelopeBytes, TypeConfig};
use starling_raft::state::ClusterId;
use uuid::Uuid;

use crate::image::Dice;

/// One thing asked of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Vote { term: u64, node: u64, committed: bool },
    Append { term: u64, first: u64, count: u64, bytes: usize },
    Truncate { from: u64 },
    Purge { term: u64, index: u64 },
    Marker,
}

impl Request {
    fn line(&self) -> String {
        match self {
            Self::Vote { term, node, committed } => format!("vote {term} {node} {committed}"),
            Self::Append { term, first, count, bytes } => format!("append {term} {first} {count} {bytes}"),
            Self::Truncate { from } => format!("truncate {from}"),
            Self::Purge { term, index } => format!("purge {term} {index}"),
            Self::Marker => "marker".to_owned(),
        }
    }

    /// The request that [`Request::line`] wrote.
    pub(crate) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Self {
        let kind = words.next().unwrap();
        let mut word = || words.next().unwrap();
        match kind {
            "vote" => Self::Vote {
                term: word().parse().unwrap(),
                node: word().parse().unwrap(),
                committed: word().parse().unwrap(),
            },
            "append" => Self::Append {
                term: word().parse().unwrap(),
                first: word().parse().unwrap(),
                count: word().parse().unwrap(),
                bytes: word().parse().unwrap(),
            },
            "truncate" => Self::Truncate { from: word().parse().unwrap() },
            "purge" => Self::Purge { term: word().parse().unwrap(), index: word().parse().unwrap() },
            "marker" => Self::Marker,
            other => panic!("an unknown request: {other}"),
        }
    }
}

/// What an entry holds; different for every term and index.
pub(crate) fn content(term: u64, index: u64, bytes: usize) -> EntryPayload<EnvelopeBytes, u64, BasicNode> {
    let mut dice = Dice(term << 32 | (index + 1));
    let bytes: Vec<u8> = (0..bytes).map(|_| dice.roll(256) as u8).collect();
    EntryPayload::Normal(EnvelopeBytes(Bytes::from(bytes)))
}

type Answer = Pin<Box<dyn Future<Output = ()>>>;

struct Client {
    store: LogStore,
    notes: File,
    next_id: u64,
}

impl Client {
    fn note(&mut self, line: &str) {
        // One write, so that it is one record.
        self.notes.write_all(line.as_bytes()).unwrap();
    }

    /// Asks, and answers with what waits for the acknowledgement.
    async fn ask(&mut self, request: Request) -> (u64, Answer) {
        self.next_id += 1;
        let id = self.next_id;
        self.note(&format!("ask {id} {}\n", request.line()));
        let mut store = self.store.clone();
        let answer: Answer = match request {
            Request::Append { term, first, count, bytes } => {
                let entries: Vec<_> = (first..first + count)
                    .map(|index| Entry {
                        log_id: LogId::new(LeaderId { term, node_id: 1 }, index),
                        payload: content(term, index, bytes),
                    })
                    .collect();
                let (sender, flushed) = <TypeConfig as TypeConfigExt>::oneshot();
                store.append(entries, IOFlushed::signal(sender)).await.unwrap();
                Box::pin(async { flushed.await.unwrap().unwrap() })
            }
            Request::Purge { term, index } => {
                store.purge(LogId::new(LeaderId { term, node_id: 1 }, index)).await.unwrap();
                Box::pin(async {})
            }
            Request::Vote { term, node, committed } => Box::pin(async move {
                let vote = if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) };
                store.save_vote(&vote).await.unwrap();
            }),
            Request::Truncate { from } => Box::pin(async move {
                let state = store.get_log_state().await.unwrap();
                let mut keep = state.last_log_id.unwrap();
                let kept =
                    openraft::RaftLogReader::try_get_log_entries(&mut store, from - 1..from).await.unwrap();
                keep = kept.first().map_or(keep, |entry| entry.log_id);
                store.truncate_after(Some(keep)).await.unwrap();
            }),
            Request::Marker => Box::pin(async move {
                store.set_marker(ClusterId::new(Uuid::from_u128(1))).await.unwrap();
            }),
        };
        (id, answer)
    }

    async fn ask_and_wait(&mut self, request: Request) {
        let (id, answer) = self.ask(request).await;
        answer.await;
        self.note(&format!("done {id}\n"));
    }

    /// Asks everything before it waits for anything, so that groups form.
    async fn burst(&mut self, requests: Vec<Request>) {
        let mut waiting = Vec::new();
        for request in requests {
            waiting.push(self.ask(request).await);
        }
        for (id, answer) in waiting {
            answer.await;
            self.note(&format!("done {id}\n"));
        }
    }
}

fn append(term: u64, first: u64, count: u64, bytes: usize) -> Request {
    Request::Append { term, first, count, bytes }
}

fn run(dir: &Path, notes: &Path, options: &LogStoreOptions, sessions: Vec<Vec<Vec<Request>>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let notes = File::options().append(true).create(true).open(notes).unwrap();
        let mut next_id = 0;
        for session in sessions {
            let store = log_store::open(dir, options.clone()).unwrap().store;
            let mut client = Client { store, notes: notes.try_clone().unwrap(), next_id };
            for step in session {
                match <[Request; 1]>::try_from(step) {
                    Ok([request]) => client.ask_and_wait(request).await,
                    Err(requests) => client.burst(requests).await,
                }
            }
            next_id = client.next_id;
            client.store.close().await.unwrap();
        }
    });
}

/// Everything the log can do, with the settings it ships with: single writes,
/// groups, entries of many chunks and of several batches, truncations, purges, restarts.
pub(crate) fn everything(dir: &Path, notes: &Path, options: &LogStoreOptions) {
    let one = |request| vec![request];
    let mut first = vec![
        one(Request::Marker),
        one(Request::Vote { term: 1, node: 1, committed: false }),
        one(Request::Vote { term: 1, node: 1, committed: true }),
    ];
    for index in 0..12 {
        first.push(one(append(1, index, 1, 100 + 50 * index as usize)));
    }
    first.push((12..60).map(|index| append(1, index, 1, 300)).collect());
    first.push(one(append(1, 60, 20, 500)));
    first.push(one(append(1, 80, 1, 90_000)));
    first.push(one(append(1, 81, 1, 1_200_000)));
    first.push(vec![append(1, 82, 4, 5_000), Request::Vote { term: 2, node: 2, committed: false }]);
    first.push(one(Request::Truncate { from: 84 }));
    first.push(one(append(2, 84, 3, 700)));
    first.push(vec![Request::Purge { term: 1, index: 40 }, append(2, 87, 2, 200)]);
    first.push(vec![append(2, 89, 3, 100), Request::Truncate { from: 90 }]);
    first.push(one(append(3, 90, 5, 100)));

    let mut second = vec![one(Request::Vote { term: 3, node: 1, committed: true })];
    second.push((95..115).map(|index| append(3, index, 2, 150)).step_by(2).collect());
    second.push(vec![Request::Purge { term: 1, index: 81 }, append(3, 115, 1, 4_200)]);
    for index in 116..122 {
        second.push(one(append(3, index, 1, 50)));
    }

    let mut third = vec![one(Request::Vote { term: 4, node: 3, committed: false })];
    for index in 122..134 {
        third.push(one(append(3, index, 1, 20 * (index - 121) as usize)));
    }
    third.push(one(Request::Truncate { from: 130 }));
    third.push(one(append(5, 130, 2, 2_000)));
    run(dir, notes, options, vec![first, second, third]);
}

/// A log that grows and is purged until the space of freed segments is used again.
pub(crate) fn churn(dir: &Path, notes: &Path, options: &LogStoreOptions) {
    let mut sessions = Vec::new();
    let mut next = 0;
    for session in 0..3 {
        let mut steps = vec![vec![Request::Vote { term: session + 1, node: 1, committed: true }]];
        for _ in 0..30 {
            let mut step: Vec<_> = (next..next + 6).map(|index| append(1, index, 1, 1_500)).collect();
            next += 6;
            if next >= 24 {
                step.push(Request::Purge { term: 1, index: next - 20 });
            }
            steps.push(step);
        }
        sessions.push(steps);
    }
    run(dir, notes, options, sessions);
}
