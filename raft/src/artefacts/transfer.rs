//! Fetches one artefact from the peers that hold it: ranges from several at
//! once, going on with the others when one fails, verified as a whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use sha2::{Digest, Sha256};
use starling_proto::peer::artefacts_client::ArtefactsClient;
use starling_proto::peer::{FetchRequest, HoldsRequest};
use tokio::time::{Instant, sleep_until, timeout};

use super::shelf::{PartialFile, Shelf};
use super::{Flockmates, blocking};
use crate::peers::PeerChannel;
use crate::state::{ArtefactDigest, NodeId};

/// What is asked of one peer at a time.
const RANGE_BYTES: u64 = 1024 * 1024;
const PEERS_AT_ONCE: usize = 4;
const HOLDS_DEADLINE: Duration = Duration::from_secs(3);
/// A peer that sends nothing for so long is given up for this range.
const SILENCE_MAX: Duration = Duration::from_secs(10);
const ROUND_PAUSE: Duration = Duration::from_millis(300);

/// What is to be fetched.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) digest: ArtefactDigest,
    pub(super) size_bytes: u64,
    /// Who is known to hold it, beside those who say so when asked.
    pub(super) holders: Vec<NodeId>,
}

/// Fetches, verifies, and puts in place; until `deadline`. `Err` says what each
/// peer's fault was.
pub(super) async fn fetch(
    shelf: Arc<Shelf>,
    flockmates: Arc<dyn Flockmates>,
    wanted: Wanted,
    deadline: Instant,
) -> Result<(), String> {
    let mut transfer = Transfer::begin(shelf, flockmates, wanted).await.map_err(|error| error.to_string())?;
    loop {
        match timeout_at(deadline, transfer.round()).await {
            Some(Ok(true)) => return transfer.put().await.map_err(|error| error.to_string()),
            Some(Ok(false)) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(transfer.why_not()),
        }
        let next_round = Instant::now() + ROUND_PAUSE;
        if next_round >= deadline {
            return Err(transfer.why_not());
        }
        sleep_until(next_round).await;
    }
}

async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline, future).await.ok()
}

struct Transfer {
    shelf: Arc<Shelf>,
    flockmates: Arc<dyn Flockmates>,
    wanted: Wanted,
    partial: PartialFile,
    file: Arc<File>,
    /// Ranges that are not here yet; (offset, length).
    missing: Mutex<VecDeque<(u64, u64)>>,
    /// The newest fault of each peer.
    faults: Mutex<BTreeMap<NodeId, String>>,
    /// Peers that sent a whole file of other bytes.
    liars: BTreeSet<NodeId>,
}

impl Transfer {
    async fn begin(shelf: Arc<Shelf>, flockmates: Arc<dyn Flockmates>, wanted: Wanted) -> io::Result<Self> {
        let (partial, size_bytes) = (shelf.partial(), wanted.size_bytes);
        let path = partial.path.clone();
        let file = blocking(move || {
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            file.set_len(size_bytes)?;
            Ok(file)
        })
        .await?;
        Ok(Self {
            missing: Mutex::new(ranges(size_bytes)),
            shelf,
            flockmates,
            wanted,
            partial,
            file: Arc::new(file),
            faults: Mutex::default(),
            liars: BTreeSet::new(),
        })
    }

    /// One look at who holds it, and all that they give. True once the whole is
    /// here and is what it should be.
    async fn round(&mut self) -> io::Result<bool> {
        let holders = self.holders().await;
        let some: Vec<_> = holders.iter().take(PEERS_AT_ONCE).collect();
        self.fetch_missing(&some).await?;
        if !self.is_whole() {
            return Ok(false);
        }
        if self.verify().await? {
            return Ok(true);
        }
        // Somebody's bytes are wrong. One at a time shows whose.
        for holder in &holders {
            self.start_over();
            self.fetch_missing(&[holder]).await?;
            if !self.is_whole() {
                continue;
            }
            if self.verify().await? {
                return Ok(true);
            }
            tracing::error!(node = %holder.0, digest = %self.wanted.digest, "a peer sent an artefact whose bytes are not those of its digest");
            self.note(holder.0, "its bytes have another SHA-256".to_owned());
            self.liars.insert(holder.0);
        }
        self.start_over();
        Ok(false)
    }

    /// Who says that it holds the artefact, with a client for it.
    async fn holders(&self) -> Vec<(NodeId, ArtefactsClient<PeerChannel>)> {
        let own = self.flockmates.this_node();
        let mut asked: BTreeSet<NodeId> = self.flockmates.live().into_iter().collect();
        asked.extend(&self.wanted.holders);
        let asked = asked.into_iter().filter(|node| *node != own && !self.liars.contains(node));
        join_all(asked.map(|node| self.if_it_holds(node))).await.into_iter().flatten().collect()
    }

    async fn if_it_holds(&self, node: NodeId) -> Option<(NodeId, ArtefactsClient<PeerChannel>)> {
        let channel = match self.flockmates.channel(node) {
            Ok(channel) => channel,
            Err(unavailable) => {
                self.note(node, unavailable.reason);
                return None;
            }
        };
        let mut client = ArtefactsClient::new(channel);
        let request = HoldsRequest { sha256: vec![self.wanted.digest.bytes().to_vec().into()] };
        match timeout(HOLDS_DEADLINE, client.holds(request)).await {
            Ok(Ok(answer)) if !answer.get_ref().sha256.is_empty() => return Some((node, client)),
            Ok(Ok(_)) => self.note(node, "does not hold it".to_owned()),
            Ok(Err(status)) => self.note(node, status.message().to_owned()),
            Err(_) => self.note(node, format!("no answer within {HOLDS_DEADLINE:?}")),
        }
        None
    }

    /// Each holder takes one missing range after the other, until none is left
    /// or it fails.
    async fn fetch_missing(&self, holders: &[&(NodeId, ArtefactsClient<PeerChannel>)]) -> io::Result<()> {
        let workers = holders.iter().map(|(node, client)| async move {
            while let Some(range) = self.take_missing() {
                match self.fetch_range(client.clone(), range).await {
                    Ok(()) => {}
                    Err(FetchFault::Peer { reason, here_bytes }) => {
                        self.give_back((range.0 + here_bytes, range.1 - here_bytes));
                        self.note(*node, reason);
                        return Ok(());
                    }
                    Err(FetchFault::Disk(error)) => return Err(error),
                }
            }
            Ok(())
        });
        join_all(workers).await.into_iter().collect()
    }

    async fn fetch_range(
        &self,
        mut client: ArtefactsClient<PeerChannel>,
        (offset, length): (u64, u64),
    ) -> Result<(), FetchFault> {
        let request = FetchRequest { sha256: self.wanted.digest.bytes().to_vec().into(), offset, length };
        let mut here_bytes = 0;
        let fault = |here_bytes, reason: String| FetchFault::Peer { reason, here_bytes };
        let silent = || format!("sent nothing for {SILENCE_MAX:?}");
        let mut chunks = match timeout(SILENCE_MAX, client.fetch(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(fault(0, status.message().to_owned())),
            Err(_) => return Err(fault(0, silent())),
        };
        while here_bytes < length {
            let chunk = match timeout(SILENCE_MAX, chunks.message()).await {
                Ok(Ok(Some(message))) => message.chunk,
                Ok(Ok(None)) => return Err(fault(here_bytes, "its file is too short".to_owned())),
                Ok(Err(status)) => return Err(fault(here_bytes, status.message().to_owned())),
                Err(_) => return Err(fault(here_bytes, silent())),
            };
            let chunk_bytes = chunk.len() as u64;
            if here_bytes + chunk_bytes > length {
                return Err(fault(here_bytes, "sent more than it was asked for".to_owned()));
            }
            let (file, at) = (self.file.clone(), offset + here_bytes);
            blocking(move || file.write_all_at(&chunk, at)).await.map_err(FetchFault::Disk)?;
            here_bytes += chunk_bytes;
        }
        Ok(())
    }

    /// Reads the whole file back: what counts is what the disk will say later.
    async fn verify(&self) -> io::Result<bool> {
        let file = self.file.clone();
        let found = blocking(move || {
            file.sync_all()?;
            sha256_of(&file)
        })
        .await?;
        Ok(found == self.wanted.digest)
    }

    async fn put(self) -> io::Result<()> {
        let Self { shelf, partial, wanted, .. } = self;
        blocking(move || shelf.put(partial, wanted.digest)).await.map(|_| ())
    }

    fn take_missing(&self) -> Option<(u64, u64)> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn give_back(&self, range: (u64, u64)) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).push_front(range);
    }

    fn is_whole(&self) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn start_over(&self) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = ranges(self.wanted.size_bytes);
    }

    fn note(&self, node: NodeId, fault: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).insert(node, fault);
    }

    fn why_not(&self) -> String {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.is_empty() {
            return "no other node is alive".to_owned();
        }
        let said: Vec<String> = faults.iter().map(|(node, fault)| format!("node {node}: {fault}")).collect();
        said.join("; ")
    }
}

enum FetchFault {
    /// The peer's; the first `here_bytes` of the range did arrive.
    Peer { reason: String, here_bytes: u64 },
    /// Our own.
    Disk(io::Error),
}

fn ranges(size_bytes: u64) -> VecDeque<(u64, u64)> {
    (0..size_bytes.div_ceil(RANGE_BYTES))
        .map(|number| {
            let offset = number * RANGE_BYTES;
            (offset, RANGE_BYTES.min(size_bytes - offset))
        })
        .collect()
}

fn sha256_of(mut file: &File) -> io::Result<ArtefactDigest> {
    io::Seek::rewind(&mut file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(ArtefactDigest::new(hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn ranges_cover_the_file_once() {
        assert_eq!(ranges(0), []);
        assert_eq!(ranges(1), [(0, 1)]);
        assert_eq!(ranges(RANGE_BYTES), [(0, RANGE_BYTES)]);
        assert_eq!(ranges(RANGE_BYTES + 1), [(0, RANGE_BYTES), (RANGE_BYTES, 1)]);
    }
}
