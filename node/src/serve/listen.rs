//! Binds all ports before anything else starts, so that a port in use is found
//! at once and every port is known. The clients' ports are opened only once
//! there is somebody to answer: until then a client's connection is refused,
//! which tells it to ask another node, and no request is lost.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use starling_raft::state::Addresses;

use super::CannotStart;
use crate::config::Settings;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// The four ports, and what others should dial.
pub(super) struct Listeners {
    pub(super) rest: BoundPort,
    pub(super) grpc: BoundPort,
    pub(super) metrics: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) addresses: Addresses,
}

impl Listeners {
    /// Checks the host against `insecure`, and binds.
    pub(super) fn bind(settings: &Settings) -> Result<Self, CannotStart> {
        let host = resolve(&settings.host)?;
        if !host.is_loopback() && !settings.insecure {
            return Err(CannotStart(format!(
                "host {} is not loopback and there is no authentication yet: give --insecure if everyone who can reach it may do everything, or listen on 127.0.0.1",
                settings.host
            )));
        }
        let advertised = match &settings.advertise {
            Some(advertise) => advertise.clone(),
            None if host.is_unspecified() => {
                return Err(CannotStart(format!(
                    "host {} is no address that others could dial: say which with --advertise HOST",
                    settings.host
                )));
            }
            None => settings.host.clone(),
        };
        let rest = bind(host, settings.rest_port, "rest")?;
        let grpc = bind(host, settings.grpc_port, "grpc")?;
        let metrics = bind(host, settings.metrics_port, "metrics")?.open()?;
        let peer = bind(host, settings.peer_port, "peer")?.open()?;
        let dialled = |listener: &TcpListener| -> Result<String, CannotStart> {
            let port = listener.local_addr().map_err(|error| CannotStart(error.to_string()))?.port();
            Ok(host_and_port(&advertised, port))
        };
        let addresses = Addresses {
            peer: dialled(&peer)?,
            grpc: dialled(&grpc.socket)?,
            rest: dialled(&rest.socket)?,
            metrics: dialled(&metrics)?,
        };
        Ok(Self { rest, grpc, metrics, peer, addresses })
    }
}

fn resolve(host: &str) -> Result<IpAddr, CannotStart> {
    let unknown =
        |reason: String| CannotStart(format!("host '{host}' is not known: {reason}; give --host an address"));
    let mut found = (host, 0).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    found.next().map(|address| address.ip()).ok_or_else(|| unknown("it has no address".into()))
}

/// A port that is taken but not open yet: connections to it are refused.
pub(super) struct BoundPort {
    // Bound, and no listener before it is opened.
    socket: TcpListener,
    address: SocketAddr,
    which: &'static str,
}

impl BoundPort {
    /// Listens, non-blocking.
    pub(super) fn open(self) -> Result<TcpListener, CannotStart> {
        let opened = sockopt::set_socket_reuseaddr(&self.socket, true)
            .and_then(|()| rustix::net::listen(&self.socket, BACKLOG))
            .map_err(io::Error::from);
        opened.map_err(|error| cannot_listen(self.which, self.address, &error))?;
        Ok(self.socket)
    }
}

fn bind(host: IpAddr, port: u16, which: &'static str) -> Result<BoundPort, CannotStart> {
    let address = SocketAddr::new(host, port);
    let socket = bound_socket(address).map_err(|error| cannot_listen(which, address, &error.into()))?;
    Ok(BoundPort { socket, address, which })
}

fn bound_socket(address: SocketAddr) -> rustix::io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an earlier process that linger are not in the way; but as
    // long as the port is not open, the system must not give it to others.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(TcpListener::from(socket))
}

fn cannot_listen(which: &str, address: SocketAddr, error: &io::Error) -> CannotStart {
    let advice = format!("give --{which}-port another one, or 0 to let the system choose");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            CannotStart(format!("{which} port {address} is in use by another process; {advice}"))
        }
        _ => CannotStart(format!("{which} port {address} cannot be listened on: {error}; {advice}")),
    }
}

/// An IPv6 address needs brackets before a port.
fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Given, resolve as resolve_settings};

    fn settings(flags: &[(&'static str, &str)]) -> Settings {
        let ports = [("rest_port", "0"), ("grpc_port", "0"), ("metrics_port", "0"), ("peer_port", "0")];
        let flags: BTreeMap<&'static str, String> =
            ports.iter().chain(flags).map(|(name, value)| (*name, (*value).to_owned())).collect();
        resolve_settings(&Given { flags, ..Given::default() }).unwrap()
    }

    fn refusal(flags: &[(&'static str, &str)]) -> String {
        Listeners::bind(&settings(flags)).err().expect("must be refused").to_string()
    }

    #[test]
    fn ports_that_the_system_chose_are_told() {
        let listeners = Listeners::bind(&settings(&[])).unwrap();
        let port = listeners.rest.socket.local_addr().unwrap().port();
        assert_ne!(port, 0);
        assert_eq!(listeners.addresses.rest, format!("127.0.0.1:{port}"));
    }

    #[test]
    fn a_client_port_refuses_connections_until_it_is_opened() {
        let listeners = Listeners::bind(&settings(&[])).unwrap();
        let address = listeners.grpc.socket.local_addr().unwrap();
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _open = listeners.grpc.open().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        assert!(std::net::TcpStream::connect(listeners.metrics.local_addr().unwrap()).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = refusal(&[("grpc_port", &address.port().to_string())]);
        assert!(
            text.contains(&format!("grpc port {address} is in use")) && text.contains("--grpc-port"),
            "{text}"
        );
    }

    #[test]
    fn beyond_loopback_needs_insecure_and_an_address_to_dial() {
        assert!(refusal(&[("host", "0.0.0.0")]).contains("--insecure"));
        assert!(refusal(&[("host", "0.0.0.0"), ("insecure", "true")]).contains("--advertise"));
        let told =
            Listeners::bind(&settings(&[("host", "0.0.0.0"), ("insecure", "true"), ("advertise", "a.b")]));
        assert!(told.unwrap().addresses.peer.starts_with("a.b:"));
    }

    #[test]
    fn an_ipv6_address_gets_brackets() {
        assert_eq!(host_and_port("::1", 8001), "[::1]:8001");
        assert_eq!(host_and_port("node-1.example", 8001), "node-1.example:8001");
    }
}
