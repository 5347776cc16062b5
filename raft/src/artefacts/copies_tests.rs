//! Stores that copy from each other over real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use starling_proto::peer::artefacts_client::ArtefactsClient;
use starling_proto::peer::artefacts_server::Artefacts;
use starling_proto::peer::{
    FetchRequest, FetchResponse, HoldsRequest, HoldsResponse, ReplicateRequest, ReplicateResponse,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::*;
use crate::consensus::AppliedState;
use crate::dial::dial;
use crate::gossip::{LivePeer, LivePeers};
use crate::peers::{PeerIdentity, Peers};
use crate::state::{Addresses, ClusterId, LogIndex};

const PATIENCE: Duration = Duration::from_secs(30);
/// Five ranges, the last one short.
const SIZE_BYTES: usize = 4 * 1024 * 1024 + 12_345;

/// The real service, with what a test adds.
struct Spied {
    inner: ArtefactService,
    fetched_bytes: Arc<AtomicU64>,
    /// Told at each question what is held here.
    asked: Arc<Notify>,
    /// Each answer to Fetch breaks off after this many chunks.
    breaks_after_chunks: Option<usize>,
}

#[tonic::async_trait]
impl Artefacts for Spied {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn holds(&self, request: Request<HoldsRequest>) -> Result<Response<HoldsResponse>, Status> {
        let answer = self.inner.holds(request).await;
        self.asked.notify_one();
        answer
    }

    async fn replicate(
        &self,
        request: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        self.inner.replicate(request).await
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let chunks = self.inner.fetch(request).await?.into_inner();
        let fetched_bytes = self.fetched_bytes.clone();
        let counted = chunks.inspect(move |chunk| {
            let bytes = chunk.as_ref().map_or(0, |chunk| chunk.chunk.len());
            fetched_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        });
        Ok(Response::new(match self.breaks_after_chunks {
            None => Box::pin(counted),
            Some(chunks) => {
                let broken = futures::stream::iter([Err(Status::unavailable("the node died"))]);
                Box::pin(counted.take(chunks).chain(broken))
            }
        }))
    }
}

struct Node {
    store: ArtefactStore,
    node_id: NodeId,
    address: String,
    fetched_bytes: Arc<AtomicU64>,
    asked: Arc<Notify>,
    server: JoinHandle<()>,
    dir: tempfile::TempDir,
}

async fn start(node_id: u64, breaks_after_chunks: Option<usize>) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let store = ArtefactStore::open(dir.path(), 16 * 1024 * 1024).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fetched_bytes = Arc::new(AtomicU64::new(0));
    let asked = Arc::new(Notify::new());
    let service = Spied {
        inner: ArtefactService::new(store.clone()),
        fetched_bytes: fetched_bytes.clone(),
        asked: asked.clone(),
        breaks_after_chunks,
    };
    let router = Server::builder().add_service(ArtefactsServer::new(service));
    let server = tokio::spawn(async move {
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Node { store, node_id: NodeId::new(node_id), address, fetched_bytes, asked, server, dir }
}

struct Mates {
    peers: Peers,
    voters: Vec<NodeId>,
}

impl Flockmates for Mates {
    fn this_node(&self) -> NodeId {
        self.peers.identity().node_id
    }

    fn voters(&self) -> Vec<NodeId> {
        self.voters.clone()
    }

    fn live(&self) -> Vec<NodeId> {
        self.peers.live().borrow().keys().copied().collect()
    }

    fn channel(&self, node_id: NodeId) -> Result<PeerChannel, PeerUnavailable> {
        self.peers.channel(node_id)
    }
}

/// Tells each node of all; all of them vote.
fn connect(nodes: &[&Node]) {
    let live: LivePeers = nodes
        .iter()
        .map(|node| {
            let addresses = Addresses { peer: node.address.clone(), ..Addresses::default() };
            (node.node_id, LivePeer { addresses, ..LivePeer::default() })
        })
        .collect::<BTreeMap<_, _>>();
    for node in nodes {
        let identity = PeerIdentity { cluster_id: ClusterId::new(Uuid::from_u128(1)), node_id: node.node_id };
        let applied = AppliedState { index: LogIndex::new(0), state: Arc::default() };
        let peers = Peers::new(identity, watch::channel(live.clone()).1, watch::channel(applied).1);
        let voters = nodes.iter().map(|node| node.node_id).collect();
        node.store.connect(Arc::new(Mates { peers, voters }));
    }
}

fn content() -> Vec<u8> {
    (0..SIZE_BYTES).map(|at| (at * 31 + at / 4096) as u8).collect()
}

fn digest() -> ArtefactDigest {
    ArtefactDigest::new(Sha256::digest(content()).into())
}

impl Node {
    async fn push(&self) {
        let mut upload = self.store.upload().await.unwrap();
        for chunk in content().chunks(100_000) {
            upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
        assert_eq!(upload.keep(Some(digest())).await.unwrap(), (digest(), SIZE_BYTES as u64));
    }

    async fn ensure(&self) -> Result<PathBuf, ArtefactError> {
        self.store.ensure_local(digest(), SIZE_BYTES as u64, PATIENCE).await
    }

    /// Flips a byte of the file on disk, as a bad disk would.
    fn corrupt(&self) {
        let path = self.store.path(digest()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[3_000_000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn an_upload_is_there_under_its_digest_and_bad_ones_leave_nothing() {
    let node = start(1000, None).await;
    node.push().await;
    assert_eq!(std::fs::read(node.store.path(digest()).unwrap()).unwrap(), content());

    let mut other = node.store.upload().await.unwrap();
    other.write(Bytes::from_static(b"other bytes")).await.unwrap();
    assert_eq!(std::fs::read(other.flushed_path().await.unwrap()).unwrap(), b"other bytes");
    let refusal = other.keep(Some(digest())).await.unwrap_err();
    assert!(matches!(refusal, ArtefactError::DigestMismatch { .. }), "{refusal}");

    let mut large = node.store.upload().await.unwrap();
    let chunk = Bytes::from(vec![0; 15 * 1024 * 1024]);
    large.write(chunk.clone()).await.unwrap();
    let refusal = large.write(chunk).await.unwrap_err();
    assert!(matches!(refusal, ArtefactError::TooLarge { limit_bytes: 16_777_216 }), "{refusal}");
    drop(large);
    assert_eq!(std::fs::read_dir(node.dir.path().join("artefacts/incoming")).unwrap().count(), 0);
}

#[tokio::test]
async fn ranges_come_from_several_peers_and_concurrent_calls_share_one_transfer() {
    let (first, second, third) = (start(1000, None).await, start(1001, None).await, start(1002, None).await);
    connect(&[&first, &second, &third]);
    first.push().await;
    second.push().await;
    let paths = futures::future::join_all((0..8).map(|_| third.ensure())).await;
    for path in paths {
        assert_eq!(std::fs::read(path.unwrap()).unwrap(), content());
    }
    assert_eq!(first.fetched_bytes() + second.fetched_bytes(), SIZE_BYTES as u64);
    assert!(first.fetched_bytes() > 0 && second.fetched_bytes() > 0);
}

#[tokio::test]
async fn wrong_bytes_of_one_peer_are_found_out_and_another_is_used() {
    let (corrupt, good, third) = (start(1000, None).await, start(1001, None).await, start(1002, None).await);
    connect(&[&corrupt, &good, &third]);
    corrupt.push().await;
    corrupt.corrupt();
    good.push().await;
    let path = third.ensure().await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
}

#[tokio::test]
async fn wrong_bytes_alone_are_never_accepted() {
    let (corrupt, second) = (start(1000, None).await, start(1001, None).await);
    connect(&[&corrupt, &second]);
    corrupt.push().await;
    corrupt.corrupt();
    let short = Duration::from_secs(3);
    let refusal = second.store.ensure_local(digest(), SIZE_BYTES as u64, short).await.unwrap_err();
    assert!(matches!(refusal, ArtefactError::NotFetched { .. }), "{refusal}");
    assert_eq!(second.store.path(digest()), None);
}

#[tokio::test]
async fn a_transfer_goes_on_where_a_peer_broke_off() {
    let (dying, good, third) = (start(1000, Some(2)).await, start(1001, None).await, start(1002, None).await);
    connect(&[&dying, &good, &third]);
    dying.push().await;
    good.push().await;
    let path = third.ensure().await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content());
    // What the dying peer had sent was not fetched again.
    assert_eq!(dying.fetched_bytes() + good.fetched_bytes(), SIZE_BYTES as u64);
    assert!(dying.fetched_bytes() > 0);
}

#[tokio::test]
async fn a_peer_that_comes_later_is_waited_for() {
    let (first, second) = (start(1000, None).await, start(1001, None).await);
    connect(&[&first, &second]);
    let (fetched, ()) = tokio::join!(second.ensure(), async {
        // It was asked and had nothing.
        tokio::time::timeout(PATIENCE, first.asked.notified()).await.unwrap();
        first.push().await;
    });
    assert_eq!(std::fs::read(fetched.unwrap()).unwrap(), content());
}

#[tokio::test]
async fn a_majority_of_voters_is_enough_and_less_is_not() {
    let (first, second, third) = (start(1000, None).await, start(1001, None).await, start(1002, None).await);
    connect(&[&first, &second, &third]);
    first.push().await;
    third.server.abort();
    first.store.replicate_to_majority(digest(), SIZE_BYTES as u64, PATIENCE).await.unwrap();
    assert!(second.store.path(digest()).is_some());

    let alone = start(1003, None).await;
    connect(&[&alone, &third]);
    alone.push().await;
    let short = Duration::from_secs(2);
    let refusal = alone.store.replicate_to_majority(digest(), SIZE_BYTES as u64, short).await.unwrap_err();
    assert!(matches!(refusal, ArtefactError::NoMajority { holders: 1, voters: 2, .. }), "{refusal}");
}

#[tokio::test]
async fn only_garbage_that_is_old_enough_is_collected() {
    let node = start(1000, None).await;
    node.push().await;
    let nothing_refers = State::default();
    let hour = Duration::from_secs(3600);
    assert_eq!(node.store.collect_garbage(&nothing_refers, hour).await.unwrap(), 0);
    assert_eq!(node.store.collect_garbage(&nothing_refers, Duration::ZERO).await.unwrap(), 1);
    assert_eq!(node.store.path(digest()), None);
}

#[tokio::test]
async fn only_whole_artefacts_can_be_asked_for() {
    let node = start(1000, None).await;
    let mut client = ArtefactsClient::new(dial(&node.address).unwrap());
    let fetch = |sha256: Vec<u8>, offset| FetchRequest { sha256: sha256.into(), offset, length: 0 };
    let path = b"../../../identity.json".to_vec();
    assert_eq!(client.fetch(fetch(path, 0)).await.unwrap_err().code(), Code::InvalidArgument);
    let known = digest().bytes().to_vec();
    assert_eq!(client.fetch(fetch(known.clone(), 0)).await.unwrap_err().code(), Code::NotFound);
    node.push().await;
    let behind = SIZE_BYTES as u64 + 1;
    assert_eq!(client.fetch(fetch(known, behind)).await.unwrap_err().code(), Code::OutOfRange);
}
