//! The answering end of a connection: reads requests on a core, runs each there
//! as a task of its own, and sends back what comes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use starling_proto::inference::ModelInferResponse;
use starling_proto::peer::{ForwardHello, ForwardRequest};
use starling_raft::flock::FORWARDING_MARK;
use starling_raft::peers::PeerIdentity;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::frame::{Frame, Kind, bare, framed};
use super::incoming::{Incoming, set_options};
use super::outgoing::Outgoing;
use super::{GREETING_TIMEOUT, Over, REQUEST_BYTES_MAX, REQUESTS_MAX};
use crate::inference::InferError;
use crate::inference::forward::FORWARD_BYTES_MAX;
use crate::inference::forward_status::to_refusal;
use crate::inference::local::core::ReadRequest;

/// A peer that was told that this node leaves hangs up within this time.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Serves a connection until the peer hangs up or, once `end` is cancelled,
/// until what it has asked is answered. Requests that run when the connection
/// breaks are cancelled. `own` says whom callers must mean.
pub(in crate::inference) async fn serve<A>(
    stream: TcpStream,
    own: PeerIdentity,
    answer: impl Fn(ForwardRequest) -> A,
    end: CancellationToken,
) where
    A: Future<Output = Result<ModelInferResponse, InferError>> + Send + 'static,
{
    let Err(over) = try_serve(stream, own, answer, end).await;
    match over {
        Over::Closed | Over::Io(_) => tracing::debug!(reason = %over, "a connection from a peer has ended"),
        over => tracing::warn!(reason = %over, "a connection of forwarded requests was given up"),
    }
}

async fn try_serve<A>(
    stream: TcpStream,
    own: PeerIdentity,
    answer: impl Fn(ForwardRequest) -> A,
    end: CancellationToken,
) -> Result<std::convert::Infallible, Over>
where
    A: Future<Output = Result<ModelInferResponse, InferError>> + Send + 'static,
{
    set_options(&stream)?;
    let (read, write) = stream.into_split();
    let mut incoming = Incoming::new(read, REQUEST_BYTES_MAX);
    let outgoing = Arc::new(Outgoing::new(write));
    let greeted = tokio::time::timeout(GREETING_TIMEOUT, welcome(&mut incoming, &outgoing, own));
    greeted.await.map_err(|_| Over::Silent)??;
    let mut running = Running::default();
    let mut is_leaving = false;
    loop {
        let has_room = running.tasks.len() < REQUESTS_MAX && !outgoing.is_clogged();
        tokio::select! {
            biased;
            Some(ended) = running.tasks.join_next() => running.note(ended),
            frame = incoming.next(), if has_room => {
                let Frame { kind, id, body } = frame?;
                match kind {
                    Kind::Request => {
                        // Counted as soon as it is read, and not when its task first runs.
                        let read = ReadRequest::begin();
                        let request = ForwardRequest::decode(body).map_err(|error| Over::Frame(error.to_string()))?;
                        running.begin(id, Reply { outgoing: Arc::clone(&outgoing), id, is_sent: false }, answer(request), read);
                    }
                    Kind::Cancel => running.cancel(id),
                    other => return Err(Over::Frame(format!("{other:?} is not for the one who answers"))),
                }
            }
            flushed = outgoing.flush() => flushed?,
            () = end.cancelled(), if !is_leaving => {
                is_leaving = true;
                outgoing.send(bare(Kind::Leaving, 0))?;
            }
            () = tokio::time::sleep(FAREWELL_MAX), if is_leaving && running.tasks.is_empty() => {
                return Err(Over::Closed);
            }
        }
    }
}

/// Lets in who the peer port would let in.
async fn welcome(incoming: &mut Incoming, outgoing: &Outgoing, own: PeerIdentity) -> Result<(), Over> {
    incoming.expect(&FORWARDING_MARK).await?;
    let Frame { kind, body, .. } = incoming.next().await?;
    if kind != Kind::Hello {
        return Err(Over::Frame(format!("{kind:?} is no greeting")));
    }
    let hello = ForwardHello::decode(body).map_err(|error| Over::Frame(error.to_string()))?;
    let (from, to) = (hello.from.to_string(), hello.to.to_string());
    match own.check_caller(&hello.cluster_id, &from, &to) {
        Ok(()) => Ok(outgoing.send(bare(Kind::Welcome, 0))?),
        Err(status) => {
            let text = status.message().to_owned();
            let refusal = starling_proto::peer::ForwardRefusal {
                code: Code::FailedPrecondition.into(),
                text: text.clone(),
                ..Default::default()
            };
            outgoing.send(framed(Kind::Refusal, 0, &refusal))?;
            Err(Over::Frame(text))
        }
    }
}

/// What runs for the peer now.
#[derive(Default)]
struct Running {
    tasks: JoinSet<u64>,
    handles: HashMap<u64, AbortHandle>,
}

impl Running {
    fn begin<A>(&mut self, id: u64, reply: Reply, answer: A, read: ReadRequest)
    where
        A: Future<Output = Result<ModelInferResponse, InferError>> + Send + 'static,
    {
        let task = self.tasks.spawn(async move {
            let _read = read;
            reply.send(answer.await);
            id
        });
        self.handles.insert(id, task);
    }

    fn cancel(&mut self, id: u64) {
        if let Some(task) = self.handles.remove(&id) {
            task.abort();
        }
    }

    fn note(&mut self, ended: Result<u64, JoinError>) {
        match ended {
            Ok(id) => drop(self.handles.remove(&id)),
            // Cancelled, or it panicked: which one it was it does not say.
            Err(_) => self.handles.retain(|_, task| !task.is_finished()),
        }
    }
}

/// Answers a request once, whatever becomes of its task.
struct Reply {
    outgoing: Arc<Outgoing>,
    id: u64,
    is_sent: bool,
}

impl Reply {
    fn send(mut self, answer: Result<ModelInferResponse, InferError>) {
        self.send_once(answer);
    }

    fn send_once(&mut self, answer: Result<ModelInferResponse, InferError>) {
        self.is_sent = true;
        let answer = answer.and_then(|response| match response.encoded_len() {
            bytes if bytes <= FORWARD_BYTES_MAX => Ok(framed(Kind::Answer, self.id, &response)),
            bytes => Err(InferError::Internal(format!(
                "the answer has {bytes} bytes and {FORWARD_BYTES_MAX} can be sent between nodes; ask for fewer outputs"
            ))),
        });
        let frame = answer.unwrap_or_else(|error| framed(Kind::Refusal, self.id, &to_refusal(&error)));
        // An error is the reader's as well, and ends the connection there.
        let _ = self.outgoing.send(frame);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_sent {
            // Its core ends, or it panicked; where the peer cancelled it, nobody hears this.
            self.send_once(Err(InferError::Unavailable("the request was given up there".to_owned())));
        }
    }
}
