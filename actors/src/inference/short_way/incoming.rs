//! The reading half of a connection.

use std::time::Duration;

use bytes::BytesMut;
use rustix::net::sockopt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::Over;
use super::frame::{Frame, take};

/// Room for what is read at once, at least.
const READ_BYTES: usize = 16 * 1024;
/// A connection on which nothing happens is probed after this time, and so often.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// What a peer has not taken for so long is lost, and the connection with it.
const NOTHING_TAKEN_MAX: Duration = Duration::from_secs(15);

/// Frames as they come.
pub(super) struct Incoming {
    half: OwnedReadHalf,
    read: BytesMut,
    body_bytes_max: usize,
}

impl Incoming {
    /// Refuses frames with longer bodies.
    pub(super) fn new(half: OwnedReadHalf, body_bytes_max: usize) -> Self {
        Self { half, read: BytesMut::new(), body_bytes_max }
    }

    /// Reads what every connection begins with.
    pub(super) async fn expect(&mut self, mark: &[u8]) -> Result<(), Over> {
        while self.read.len() < mark.len() {
            self.read_more().await?;
        }
        if self.read.split_to(mark.len()) != mark {
            return Err(Over::Frame("it does not begin as one".to_owned()));
        }
        Ok(())
    }

    /// The next frame. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Frame, Over> {
        loop {
            if let Some(frame) = take(&mut self.read, self.body_bytes_max)? {
                return Ok(frame);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), Over> {
        self.read.reserve(READ_BYTES);
        match self.half.read_buf(&mut self.read).await? {
            0 => Err(Over::Closed),
            _ => Ok(()),
        }
    }
}

/// Small frames are not held back, and a machine that is gone is noticed.
pub(super) fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(stream, NOTHING_TAKEN_MAX.as_millis() as u32)?;
    Ok(())
}
