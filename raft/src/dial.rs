//! A channel to an address whose node is not known yet: strangers, seeds, and
//! gossip, which speaks to addresses.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Wide enough for a snapshot's chunks in flight.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// A text that is no `host:port`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{address}' is not a peer address; write it as host:port ({reason})")]
pub struct InvalidAddress {
    /// The text.
    pub address: String,
    /// Why.
    pub reason: String,
}

/// A channel to `host:port`. Connects at its first call, and again whenever the
/// connection is lost; a call fails if that takes longer than two seconds.
/// Callers put a deadline on each call.
pub fn dial(address: &str) -> Result<Channel, InvalidAddress> {
    let invalid = |reason: String| InvalidAddress { address: address.to_owned(), reason };
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if !has_port {
        return Err(invalid("the port is missing or no number".to_owned()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| invalid(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn an_address_needs_a_host_and_a_port() {
        for good in ["localhost:8003", "10.0.0.1:1", "[::1]:8003", "starling-0.starling.svc:8003"] {
            dial(good).unwrap();
        }
        for bad in ["", "localhost", ":8003", "localhost:", "localhost:0", "localhost:70000", "a b:1"] {
            let error = dial(bad).unwrap_err();
            assert!(error.to_string().contains("host:port"), "{error}");
        }
    }
}
