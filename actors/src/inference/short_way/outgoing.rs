//! The writing half of a connection: whoever has a frame writes it at once,
//! without waking anybody, and only what the kernel does not take is queued.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

/// Bytes that may be queued before the connection counts as clogged.
const CLOGGED_BYTES: usize = 4 << 20;

/// Frames on their way out.
pub(super) struct Outgoing {
    half: OwnedWriteHalf,
    queued: Mutex<Queued>,
    has_queued: Notify,
}

#[derive(Default)]
struct Queued {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl Outgoing {
    pub(super) fn new(half: OwnedWriteHalf) -> Self {
        Self { half, queued: Mutex::default(), has_queued: Notify::new() }
    }

    /// Sends a frame; what cannot be written now is written by [`Self::flush`].
    /// An error says that the connection is over; its reader hears of it too.
    pub(super) fn send(&self, mut frame: Bytes) -> io::Result<()> {
        let mut queued = self.lock();
        if queued.frames.is_empty() {
            let written = self.write_now(&frame)?;
            if written == frame.len() {
                return Ok(());
            }
            frame = frame.slice(written..);
        }
        queued.bytes += frame.len();
        queued.frames.push_back(frame);
        drop(queued);
        self.has_queued.notify_one();
        Ok(())
    }

    /// Writes what is queued; if nothing is, waits for it first. May be dropped
    /// at any time.
    pub(super) async fn flush(&self) -> io::Result<()> {
        while self.lock().frames.is_empty() {
            self.has_queued.notified().await;
        }
        loop {
            self.half.writable().await?;
            let mut queued = self.lock();
            let Some(front) = queued.frames.front_mut() else { return Ok(()) };
            let written = self.write_now(front)?;
            let _ = front.split_to(written);
            if front.is_empty() {
                queued.frames.pop_front();
            }
            queued.bytes -= written;
        }
    }

    /// The other side takes less than it is sent.
    pub(super) fn is_clogged(&self) -> bool {
        self.lock().bytes > CLOGGED_BYTES
    }

    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.half.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// A panic while it was held leaves at worst a frame cut short, which the
    /// other side answers by hanging up.
    fn lock(&self) -> std::sync::MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
