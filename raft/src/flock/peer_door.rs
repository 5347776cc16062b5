//! Sorts what dials the peer port by its first byte: HTTP/2 goes to the server of
//! the peer services, connections of forwarded predictions to the data plane.
//! One port, so that whoever cuts two nodes off from each other cuts off all.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

/// What a connection of forwarded predictions begins with. Its first byte is not
/// that of HTTP/2's preface; a node that does not know it hangs up.
pub const FORWARDING_MARK: [u8; 19] = *b"starling-forward/1\n";

/// Where such connections are taken to; the mark is still to be read. Where
/// nobody takes them they are closed, and the caller asks the ordinary way.
pub type ForwardingDoor = mpsc::Sender<TcpStream>;

/// Connections that have not said anything yet; more are closed at once.
const SILENT_MAX: usize = 1024;
/// One that says nothing for so long is closed.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After an accept that failed (too many open files, most likely).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Accepts until nobody takes HTTP/2 connections any more.
pub(super) async fn sort(
    listener: TcpListener,
    http2: mpsc::Sender<std::io::Result<tokio::net::TcpStream>>,
    forwarding: Option<ForwardingDoor>,
) {
    let silent = Arc::new(Semaphore::new(SILENT_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted.and_then(|(stream, _)| {
                stream.set_nodelay(true)?;
                Ok(stream)
            }),
            () = http2.closed() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection on the peer port was not accepted");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&silent).try_acquire_owned() else {
            tracing::warn!(limit = SILENT_MAX, "too many silent connections on the peer port; one is closed");
            continue;
        };
        let (http2, forwarding) = (http2.clone(), forwarding.clone());
        tokio::spawn(async move {
            let _seat = seat;
            let mut first = [0];
            let read = tokio::time::timeout(SILENCE_MAX, stream.peek(&mut first)).await;
            if !matches!(read, Ok(Ok(1))) {
                return;
            }
            if first[0] != FORWARDING_MARK[0] {
                // Closed: the server is stopping.
                let _ = http2.send(Ok(stream)).await;
                return;
            }
            let taken = forwarding.zip(stream.into_std().ok()).map(|(door, stream)| door.try_send(stream));
            if !matches!(taken, Some(Ok(()))) {
                tracing::debug!("a connection of forwarded predictions is closed: no data plane takes it");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn dial(first: &[u8], door: Option<ForwardingDoor>) -> (tokio::net::TcpStream, Http2) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(sort(listener, sender, door));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(first).await.unwrap();
        (stream, receiver)
    }

    type Http2 = mpsc::Receiver<std::io::Result<tokio::net::TcpStream>>;

    #[tokio::test]
    async fn http2_goes_to_the_server_with_every_byte() {
        let (_stream, mut http2) = dial(b"PRI * HTTP/2.0", None).await;
        let mut taken = tokio::time::timeout(PATIENCE, http2.recv()).await.unwrap().unwrap().unwrap();
        let mut read = [0; 14];
        taken.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"PRI * HTTP/2.0");
    }

    #[tokio::test]
    async fn a_connection_of_forwarded_predictions_goes_to_the_data_plane_with_its_mark() {
        let (door, mut taken) = mpsc::channel(1);
        let (_stream, _http2) = dial(&FORWARDING_MARK, Some(door)).await;
        let taken = tokio::time::timeout(PATIENCE, taken.recv()).await.unwrap().unwrap();
        let mut read = [0; FORWARDING_MARK.len()];
        tokio::net::TcpStream::from_std(taken).unwrap().read_exact(&mut read).await.unwrap();
        assert_eq!(read, FORWARDING_MARK);
    }

    #[tokio::test]
    async fn where_no_data_plane_takes_it_it_is_closed() {
        let (mut stream, _http2) = dial(&FORWARDING_MARK, None).await;
        let mut nothing = Vec::new();
        // Closed or reset, and in either case without a word.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut nothing)).await.unwrap();
        assert!(nothing.is_empty());
    }
}
