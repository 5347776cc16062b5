//! The asking end of a connection: requests out, and each answer to whoever
//! waits for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use prost::Message;
use starling_proto::inference::ModelInferResponse;
use starling_proto::peer::{ForwardHello, ForwardRefusal, ForwardRequest};
use starling_raft::flock::FORWARDING_MARK;
use starling_raft::peers::PeerIdentity;
use starling_raft::state::NodeId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::frame::{Frame, HEAD_BYTES, Kind, bare, begun, framed};
use super::incoming::{Incoming, set_options};
use super::outgoing::Outgoing;
use super::{GREETING_TIMEOUT, Over, REQUEST_BYTES_MAX, REQUESTS_MAX};
use crate::inference::InferError;
use crate::inference::forward::{FORWARD_BYTES_MAX, Forwarded, envelope};
use crate::inference::forward_status::from_refusal;

/// A timer that is set to a later time than one that is due already costs nothing;
/// for each that is set to an earlier one the runtime wakes itself. So one is
/// always due, and the timers of requests are free but for short deadlines.
const TIMER_ALWAYS_DUE_WITHIN: Duration = Duration::from_millis(250);
/// Field 1 of a `ForwardRequest`, which is a message.
const REQUEST_KEY: u8 = 1 << 3 | 2;

/// An open connection. Belongs to one core.
pub(super) struct Asking {
    outgoing: Outgoing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Frame>>,
    /// Why it is over: nothing more can be asked.
    over: Option<String>,
    /// The peer wants no new requests.
    is_leaving: bool,
}

impl Asking {
    /// Dials a peer and greets it.
    pub(super) async fn open(
        address: &str,
        own: PeerIdentity,
        to: NodeId,
    ) -> Result<(Arc<Self>, Incoming), Over> {
        let greeted = tokio::time::timeout(GREETING_TIMEOUT, greet(address, own, to));
        let (outgoing, incoming) = greeted.await.map_err(|_| Over::Silent)??;
        Ok((Arc::new(Self { outgoing, state: Mutex::default() }), incoming))
    }

    /// Hands answers out until the connection is over, and says why it is.
    pub(super) async fn run(&self, incoming: &mut Incoming) -> Over {
        let mut timer = tokio::time::interval(TIMER_ALWAYS_DUE_WITHIN);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let frame = tokio::select! {
                biased;
                frame = incoming.next() => frame,
                _ = timer.tick() => continue,
                flushed = self.outgoing.flush() => match flushed {
                    Ok(()) => continue,
                    Err(error) => return error.into(),
                },
            };
            match frame {
                Ok(frame) => {
                    if let Some(over) = self.receive(frame) {
                        return over;
                    }
                }
                Err(over) => return over,
            }
        }
    }

    /// Nothing more comes: whoever waits is told so.
    pub(super) fn end(&self, over: &Over) {
        let mut state = self.lock();
        state.over.get_or_insert_with(|| over.to_string());
        state.waiting.clear();
    }

    /// Takes no more requests, and will not again.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.is_leaving || state.over.is_some()
    }

    /// Sends a request. `None`: it is none for this way, or there is no room.
    pub(super) fn ask(
        self: &Arc<Self>,
        forwarded: Forwarded<'_>,
        remaining: Option<Duration>,
    ) -> Option<Pending> {
        let request = forwarded.request;
        let envelope = envelope(forwarded, remaining);
        let request_bytes = request.encoded_len();
        let body_bytes =
            envelope.encoded_len() + 1 + prost::length_delimiter_len(request_bytes) + request_bytes;
        if body_bytes > REQUEST_BYTES_MAX || self.outgoing.is_clogged() {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        let id = self.enter(sender)?;
        let pending = Pending { connection: Arc::clone(self), id, reply, is_settled: false };
        // An error is the reader's as well, and then the reply's.
        let _ = self.outgoing.send(request_frame(id, &envelope, request, body_bytes));
        Some(pending)
    }

    fn enter(&self, sender: oneshot::Sender<Frame>) -> Option<u64> {
        let mut state = self.lock();
        if state.is_leaving || state.over.is_some() || state.waiting.len() >= REQUESTS_MAX {
            return None;
        }
        state.last_id += 1;
        let id = state.last_id;
        state.waiting.insert(id, sender);
        Some(id)
    }

    /// Why the connection is over with this frame, if it is.
    fn receive(&self, frame: Frame) -> Option<Over> {
        let mut state = self.lock();
        match frame.kind {
            Kind::Answer | Kind::Refusal => {
                if let Some(waiting) = state.waiting.remove(&frame.id) {
                    // Nobody waits: it was cancelled at this moment.
                    let _ = waiting.send(frame);
                }
            }
            Kind::Leaving => state.is_leaving = true,
            Kind::Hello | Kind::Welcome | Kind::Request | Kind::Cancel => {
                return Some(Over::Frame(format!("{:?} is not for the one who asks", frame.kind)));
            }
        }
        (state.is_leaving && state.waiting.is_empty()).then_some(Over::Closed)
    }

    fn cancel(&self, id: u64) {
        if self.lock().waiting.remove(&id).is_some() {
            let _ = self.outgoing.send(bare(Kind::Cancel, id));
        }
    }

    fn why_over(&self) -> String {
        self.lock().over.clone().unwrap_or_else(|| Over::Closed.to_string())
    }

    /// A panic while it was held leaves it whole: all updates are single steps.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn greet(address: &str, own: PeerIdentity, to: NodeId) -> Result<(Outgoing, Incoming), Over> {
    let stream = TcpStream::connect(address).await?;
    set_options(&stream)?;
    let (read, mut write) = stream.into_split();
    let hello =
        ForwardHello { cluster_id: own.cluster_id.to_string(), from: own.node_id.get(), to: to.get() };
    let greeting = [&FORWARDING_MARK[..], &framed(Kind::Hello, 0, &hello)].concat();
    write.write_all(&greeting).await?;
    let mut incoming = Incoming::new(read, FORWARD_BYTES_MAX);
    let answer = incoming.next().await?;
    match answer.kind {
        Kind::Welcome => Ok((Outgoing::new(write), incoming)),
        Kind::Refusal => Err(Over::Refused(refusal(answer.body)?.text)),
        other => Err(Over::Frame(format!("{other:?} answers no greeting"))),
    }
}

/// As `ForwardRequest` encodes itself, without a copy of the request in between.
fn request_frame(id: u64, envelope: &ForwardRequest, request: &impl Message, body_bytes: usize) -> Bytes {
    let mut frame = begun(Kind::Request, id, body_bytes);
    envelope.encode_raw(&mut frame);
    frame.put_u8(REQUEST_KEY);
    let encoded = request.encode_length_delimited(&mut frame);
    debug_assert!(encoded.is_ok() && frame.len() == HEAD_BYTES + body_bytes);
    frame.freeze()
}

fn refusal(body: Bytes) -> Result<ForwardRefusal, Over> {
    ForwardRefusal::decode(body).map_err(|error| Over::Frame(error.to_string()))
}

/// A request that was sent. Dropping it cancels the request at the peer.
pub(in crate::inference) struct Pending {
    connection: Arc<Asking>,
    id: u64,
    reply: oneshot::Receiver<Frame>,
    is_settled: bool,
}

impl Pending {
    /// The answer, without a copy of its contents. [`InferError::Unavailable`] if
    /// the peer or the connection is gone.
    pub(in crate::inference) async fn answer(mut self) -> Result<ModelInferResponse, InferError> {
        let reply = (&mut self.reply).await;
        self.is_settled = true;
        let unreadable =
            |error: String| InferError::Unavailable(format!("its answer cannot be read: {error}"));
        match reply {
            Ok(Frame { kind: Kind::Answer, body, .. }) => {
                ModelInferResponse::decode(body).map_err(|error| unreadable(error.to_string()))
            }
            Ok(Frame { body, .. }) => match refusal(body) {
                Ok(refusal) => Err(from_refusal(refusal)),
                Err(error) => Err(unreadable(error.to_string())),
            },
            Err(_) => Err(InferError::Unavailable(self.connection.why_over())),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_settled {
            self.connection.cancel(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use starling_proto::inference::ModelInferRequest;

    use super::*;

    #[test]
    fn a_request_is_encoded_as_one_message_although_it_is_written_in_two() {
        let request = ModelInferRequest {
            model_name: "m".repeat(200),
            raw_input_contents: vec![Bytes::from_static(&[7; 300])],
            ..ModelInferRequest::default()
        };
        let envelope = ForwardRequest { ordinal: 3, decision: "d".into(), ..ForwardRequest::default() };
        let whole = ForwardRequest { request: Some(request.clone()), ..envelope.clone() };
        let frame = request_frame(9, &envelope, &request, whole.encoded_len());
        assert_eq!(ForwardRequest::decode(frame.slice(HEAD_BYTES..)).unwrap(), whole);
    }
}
