//! Servers of this process that do as a test says, on ports that the system gives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// What a server does with the n-th request, counted from 0.
pub type Behaviour = Arc<dyn Fn(u64) -> Step + Send + Sync>;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Answer,
    /// Blocks the whole server, as a pause of its process would.
    StallAll(Duration),
    /// With a gRPC code or an HTTP status.
    Refuse(u16),
    /// Never answers.
    Forget,
    HangUp,
}

/// Stopped when dropped.
pub struct Server {
    pub address: String,
    pub requests: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// HTTP/2 with gRPC's statuses.
pub fn grpc(behaviour: Behaviour) -> Server {
    start(behaviour, true)
}

/// HTTP/1.1.
pub fn rest(behaviour: Behaviour) -> Server {
    start(behaviour, false)
}

fn start(behaviour: Behaviour, grpc: bool) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = oneshot::channel::<()>();
    let counted = requests.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::select! {
                _ = stopped => {}
                () = accept(listener, behaviour, counted, grpc) => {}
            }
        });
    });
    Server { address: address.to_string(), requests, stop: Some(stop), thread: Some(thread) }
}

async fn accept(listener: TcpListener, behaviour: Behaviour, requests: Arc<AtomicU64>, grpc: bool) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (behaviour, requests) = (behaviour.clone(), requests.clone());
        let hang_up = Arc::new(Notify::new());
        let hung_up = hang_up.clone();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            let (behaviour, requests, hang_up) = (behaviour.clone(), requests.clone(), hang_up.clone());
            async move {
                request.into_body().collect().await.map_err(std::io::Error::other)?;
                let step = behaviour(requests.fetch_add(1, Ordering::Relaxed));
                if step == Step::HangUp {
                    hang_up.notify_one();
                }
                answer(step, grpc).await
            }
        });
        let io = TokioIo::new(stream);
        tokio::spawn(async move {
            // A connection that ends early is what some tests are about.
            let serving = async {
                if grpc {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, service).await;
                }
            };
            tokio::select! {
                () = serving => {}
                () = hung_up.notified() => {}
            }
        });
    }
}

type Answered = Result<http::Response<Full<Bytes>>, std::io::Error>;

async fn answer(step: Step, grpc: bool) -> Answered {
    let mut builder = http::Response::builder();
    let mut body = Bytes::from_static(b"{}");
    let mut code = 0;
    match step {
        Step::Answer => {}
        Step::StallAll(pause) => std::thread::sleep(pause),
        Step::Forget | Step::HangUp => std::future::pending().await,
        Step::Refuse(refusal) => code = refusal,
    }
    if grpc {
        builder = builder.header("grpc-status", code).header("grpc-message", "the%20queue is full");
    } else if code != 0 {
        builder = builder.status(code);
        body = Bytes::from_static(b"{\"error\":\"the queue is full\"}");
    }
    builder.body(Full::new(body)).map_err(std::io::Error::other)
}
