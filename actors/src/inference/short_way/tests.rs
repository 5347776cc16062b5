//! Both ends of a connection, with answers made up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use starling_proto::inference::{ModelInferRequest, ModelInferResponse};
use starling_proto::peer::ForwardRequest;
use starling_raft::peers::PeerIdentity;
use starling_raft::state::{ClusterId, NodeId, Ordinal, Principal};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::asking::Asking;
use super::{Over, REQUEST_BYTES_MAX, serve};
use crate::inference::InferError;
use crate::inference::error::Overload;
use crate::inference::forward::Forwarded;
use crate::inference::routing_table::{RoutedVersion, VersionId};
use crate::inference::test_states::routed_version;
use crate::inference::testing::{PATIENCE, eventually};

const ASKED: u64 = 8;

fn identity(cluster_id: u128, node_id: u64) -> PeerIdentity {
    PeerIdentity { cluster_id: ClusterId::new(Uuid::from_u128(cluster_id)), node_id: NodeId::new(node_id) }
}

/// The asked node: answers each connection by `answer` until `end` is cancelled.
async fn node<A>(
    answer: impl Fn(ForwardRequest) -> A + Clone + Send + Sync + 'static,
    end: &CancellationToken,
) -> String
where
    A: Future<Output = Result<ModelInferResponse, InferError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let end = end.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, identity(1, ASKED), answer.clone(), end.clone()));
        }
    });
    address
}

/// An open connection, and why it was over once it is.
async fn open(address: &str) -> (Arc<Asking>, JoinHandle<String>) {
    let opened = Asking::open(address, identity(1, 7), NodeId::new(ASKED)).await;
    let (asking, mut incoming) = opened.unwrap();
    let kept = Arc::clone(&asking);
    let over = tokio::spawn(async move {
        let over = kept.run(&mut incoming).await;
        kept.end(&over);
        over.to_string()
    });
    (asking, over)
}

struct Sender {
    request: ModelInferRequest,
    version: Arc<RoutedVersion>,
    principal: Principal,
}

impl Sender {
    fn new(contents: &'static [u8]) -> Self {
        let request = ModelInferRequest {
            model_name: "m".into(),
            raw_input_contents: vec![Bytes::from_static(contents)],
            ..ModelInferRequest::default()
        };
        Self { request, version: routed_version("m"), principal: Principal::local() }
    }

    fn forwarded(&self) -> Forwarded<'_> {
        Forwarded {
            request: &self.request,
            version: &self.version,
            epoch: 5,
            decision: "d",
            principal: &self.principal,
            deadline: None,
        }
    }

    fn ask(&self, asking: &Arc<Asking>) -> Option<super::asking::Pending> {
        asking.ask(self.forwarded(), Some(Duration::from_micros(1_500)))
    }

    async fn answer(&self, asking: &Arc<Asking>) -> Result<ModelInferResponse, InferError> {
        let pending = self.ask(asking).expect("it takes requests");
        tokio::time::timeout(PATIENCE, pending.answer()).await.expect("an answer in time")
    }
}

async fn echo(request: ForwardRequest) -> Result<ModelInferResponse, InferError> {
    let id = VersionId { model_id: request.model_id, ordinal: Ordinal::new(request.ordinal) };
    assert_eq!(id, routed_version("m").id);
    assert_eq!((request.epoch, request.decision.as_str(), request.timeout_us), (5, "d", 1_500));
    let request = request.request.unwrap();
    Ok(ModelInferResponse {
        model_name: request.model_name,
        raw_output_contents: request.raw_input_contents,
        ..ModelInferResponse::default()
    })
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_gets_its_own_answer() {
    let address = node(echo, &CancellationToken::new()).await;
    let (asking, _over) = open(&address).await;
    let large: &'static [u8] = vec![9; REQUEST_BYTES_MAX - 1_000].leak();
    let senders: Vec<Sender> = [&b"a"[..], b"bb", large, b"", b"ccc"].into_iter().map(Sender::new).collect();
    let answers = futures::future::join_all(senders.iter().map(|sender| sender.answer(&asking))).await;
    for (sender, answer) in senders.iter().zip(answers) {
        assert_eq!(answer.unwrap().raw_output_contents, sender.request.raw_input_contents);
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_and_one_too_many_are_not_taken() {
    let never = |_| std::future::pending::<Result<ModelInferResponse, InferError>>();
    let address = node(never, &CancellationToken::new()).await;
    let (asking, _over) = open(&address).await;
    assert!(Sender::new(vec![0; REQUEST_BYTES_MAX].leak()).ask(&asking).is_none());
    let small = Sender::new(b"a");
    let pending: Vec<_> = std::iter::from_fn(|| small.ask(&asking)).take(1_000).collect();
    assert_eq!(pending.len(), super::REQUESTS_MAX);
    drop(pending);
    assert!(small.ask(&asking).is_some());
}

#[tokio::test]
async fn a_refusal_arrives_as_it_was_sent() {
    let refuse = |_| async {
        Err(InferError::Overloaded {
            reason: Overload::QueueTime,
            text: "too many".into(),
            retry_after: Duration::from_millis(250),
        })
    };
    let address = node(refuse, &CancellationToken::new()).await;
    let (asking, _over) = open(&address).await;
    match Sender::new(b"a").answer(&asking).await.unwrap_err() {
        InferError::Overloaded { reason, retry_after, .. } => {
            assert_eq!((reason, retry_after), (Overload::QueueTime, Duration::from_millis(250)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_is_refused_before_it_can_ask() {
    let address = node(echo, &CancellationToken::new()).await;
    let refused = |own, to| {
        let address = address.clone();
        async move {
            match Asking::open(&address, own, NodeId::new(to)).await.err().unwrap() {
                Over::Refused(reason) => reason,
                other => panic!("{other:?}"),
            }
        }
    };
    assert!(refused(identity(2, 7), ASKED).await.contains("cluster 00000000-0000-0000-0000-000000000002"));
    assert!(refused(identity(1, ASKED), ASKED).await.starts_with("two nodes have the id 8"));
    assert!(refused(identity(1, 7), 9).await.contains("addressed to node 9"));
}

#[tokio::test]
async fn a_server_that_does_not_know_the_way_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let over = Asking::open(&address, identity(1, 7), NodeId::new(ASKED)).await.err().unwrap();
    assert!(matches!(over, Over::Closed | Over::Io(_)), "{over:?}");
}

/// Counts those that are inside.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Counts those inside, and lets out as many as the semaphore does.
fn echo_when_let(
    inside: &Arc<AtomicUsize>,
    may_answer: &Arc<Semaphore>,
) -> impl Fn(ForwardRequest) -> BoxFuture<'static, Result<ModelInferResponse, InferError>> + Clone + use<> {
    let (inside, may_answer) = (Arc::clone(inside), Arc::clone(may_answer));
    move |request| {
        let (here, may_answer) = (Inside::enter(&inside), Arc::clone(&may_answer));
        Box::pin(async move {
            let _here = here;
            may_answer.acquire().await.unwrap().forget();
            echo(request).await
        })
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_is_cancelled_at_the_peer_and_the_others_go_on() {
    let (inside, may_answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let answer = echo_when_let(&inside, &may_answer);
    let address = node(answer, &CancellationToken::new()).await;
    let (asking, _over) = open(&address).await;
    let sender = Sender::new(b"a");
    let (first, second) = (sender.ask(&asking).unwrap(), sender.ask(&asking).unwrap());
    eventually("both run at the peer", || inside.load(SeqCst) == 2).await;
    drop(first);
    eventually("the peer has stopped one", || inside.load(SeqCst) == 1).await;
    may_answer.add_permits(1);
    tokio::time::timeout(PATIENCE, second.answer()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_dies_ends_the_wait_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let inside = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&inside);
    let victim = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let never = |_| {
            let here = Inside::enter(&count);
            async move {
                let _here = here;
                std::future::pending::<Result<ModelInferResponse, InferError>>().await
            }
        };
        serve(stream, identity(1, ASKED), never, CancellationToken::new()).await;
    });
    let (asking, over) = open(&address).await;
    let pending = Sender::new(b"a").ask(&asking).unwrap();
    eventually("it runs at the peer", || inside.load(SeqCst) == 1).await;
    victim.abort();
    let error = tokio::time::timeout(PATIENCE, pending.answer()).await.unwrap().unwrap_err();
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    tokio::time::timeout(PATIENCE, over).await.unwrap().unwrap();
    assert!(asking.is_over() && Sender::new(b"a").ask(&asking).is_none());
}

#[tokio::test]
async fn a_panic_at_the_peer_is_a_refusal_of_that_request_only() {
    let answer = |request: ForwardRequest| async {
        if request.request.as_ref().unwrap().raw_input_contents[0].is_empty() {
            panic!("on purpose");
        }
        echo(request).await
    };
    let address = node(answer, &CancellationToken::new()).await;
    let (asking, _over) = open(&address).await;
    assert!(Sender::new(b"").answer(&asking).await.is_err());
    Sender::new(b"a").answer(&asking).await.unwrap();
}

#[tokio::test]
async fn a_node_that_leaves_answers_what_it_has_and_takes_nothing_new() {
    let (inside, may_answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let answer = echo_when_let(&inside, &may_answer);
    let end = CancellationToken::new();
    let address = node(answer, &end).await;
    let (asking, over) = open(&address).await;
    let pending = Sender::new(b"a").ask(&asking).unwrap();
    eventually("it runs at the peer", || inside.load(SeqCst) == 1).await;
    end.cancel();
    eventually("this side has heard it", || asking.is_over()).await;
    assert!(Sender::new(b"b").ask(&asking).is_none());
    may_answer.add_permits(1);
    tokio::time::timeout(PATIENCE, pending.answer()).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, over).await.expect("the connection must end").unwrap();
}
