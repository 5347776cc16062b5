//! Partitions without root: each node advertises an address at which a proxy
//! stands, and the proxy knows who dials by looking up which process owns the
//! other end of the socket. Cut links hold bytes, as a network that drops
//! packets does; nobody is told.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

const BUFFER_BYTES: usize = 64 * 1024;
/// Who is not found among the nodes for so long is none of them.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);
const LOOK_UP_PAUSE: Duration = Duration::from_millis(20);

/// An ordered pair of node indexes: bytes from the first to the second are held.
type Link = (usize, usize);

/// The links between the nodes of one cluster.
#[derive(Debug)]
pub struct Network {
    cut: watch::Sender<BTreeSet<Link>>,
    // Process ids by node index; the proxies read them as connections come in.
    pids: Arc<Mutex<Vec<u32>>>,
    proxies: Mutex<Vec<AbortHandle>>,
}

impl Network {
    /// Whole, and without proxies.
    pub fn new(nodes: usize) -> Self {
        Self {
            cut: watch::Sender::new(BTreeSet::new()),
            pids: Arc::new(Mutex::new(vec![0; nodes])),
            proxies: Mutex::new(Vec::new()),
        }
    }

    /// Says which process a node is now.
    pub fn set_pid(&self, node: usize, pid: u32) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        if pids.len() <= node {
            pids.resize(node + 1, 0);
        }
        pids[node] = pid;
    }

    /// Stands at `advertised` for a node that listens at `real`.
    pub async fn stand_before(&self, node: usize, advertised: SocketAddr, real: SocketAddr) -> Result<()> {
        let listener =
            TcpListener::bind(advertised).await.with_context(|| format!("cannot stand at {advertised}"))?;
        let pids = Arc::clone(&self.pids);
        let cut = self.cut.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((from_peer, source)) = listener.accept().await {
                let (pids, cut) = (Arc::clone(&pids), cut.clone());
                tokio::spawn(async move {
                    let dialler = dialler(source, advertised, &pids).await;
                    carry(from_peer, real, dialler, node, cut).await;
                });
            }
        });
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner).push(accepting.abort_handle());
        Ok(())
    }

    /// Only nodes of one group hear each other from now on.
    pub fn partition(&self, groups: &[&[usize]]) {
        let mut cut = BTreeSet::new();
        for (position, group) in groups.iter().enumerate() {
            for others in groups.iter().skip(position + 1) {
                for &a in *group {
                    for &b in *others {
                        cut.insert((a, b));
                        cut.insert((b, a));
                    }
                }
            }
        }
        self.cut.send_replace(cut);
    }

    /// Everybody hears everybody again.
    pub fn heal(&self) {
        self.cut.send_replace(BTreeSet::new());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for proxy in self.proxies.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            proxy.abort();
        }
    }
}

async fn carry(
    from_peer: TcpStream,
    real: SocketAddr,
    dialler: Option<usize>,
    node: usize,
    cut: watch::Receiver<BTreeSet<Link>>,
) {
    // Somebody who is no node of the cluster is never cut off.
    let there = dialler.map(|dialler| (dialler, node));
    let back = dialler.map(|dialler| (node, dialler));
    let mut opening = cut.clone();
    if passable(&mut opening, there).await.is_err() {
        return;
    }
    let Ok(to_node) = TcpStream::connect(real).await else { return };
    let _ = (from_peer.set_nodelay(true), to_node.set_nodelay(true));
    let (peer_read, peer_write) = from_peer.into_split();
    let (node_read, node_write) = to_node.into_split();
    // When one direction ends, the connection has ended.
    tokio::select! {
        () = pump(peer_read, node_write, there, cut.clone()) => {}
        () = pump(node_read, peer_write, back, cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    link: Option<Link>,
    mut cut: watch::Receiver<BTreeSet<Link>>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if passable(&mut cut, link).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn passable(
    cut: &mut watch::Receiver<BTreeSet<Link>>,
    link: Option<Link>,
) -> Result<(), watch::error::RecvError> {
    let Some(link) = link else { return Ok(()) };
    cut.wait_for(|cut| !cut.contains(&link)).await?;
    Ok(())
}

/// Which node dialled. The kernel's table is read in pieces while it changes, so
/// one reading may lack a socket that is there: a node that were taken for a
/// stranger would be heard through every partition.
async fn dialler(source: SocketAddr, dialled: SocketAddr, pids: &Mutex<Vec<u32>>) -> Option<usize> {
    let deadline = Instant::now() + LOOK_UP_LIMIT;
    while Instant::now() < deadline {
        let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(node) = owner_of(source, dialled, &pids) {
            return Some(node);
        }
        tokio::time::sleep(LOOK_UP_PAUSE).await;
    }
    None
}

/// Which of these processes owns the socket from `source` to `dialled`.
fn owner_of(source: SocketAddr, dialled: SocketAddr, pids: &[u32]) -> Option<usize> {
    let inode = inode_of(&std::fs::read_to_string("/proc/net/tcp").ok()?, source, dialled)?;
    let wanted = format!("socket:[{inode}]");
    pids.iter().position(|pid| {
        *pid != 0
            && std::fs::read_dir(format!("/proc/{pid}/fd"))
                .is_ok_and(|fds| fds.flatten().any(|fd| is_link_to(&fd.path(), &wanted)))
    })
}

fn is_link_to(path: &std::path::Path, wanted: &str) -> bool {
    std::fs::read_link(path).is_ok_and(|target| target.as_os_str() == wanted)
}

// A line: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`.
// A port may stand in several lines: other remotes, connections that are over.
fn inode_of(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    let (local, remote) = (as_in_table(local)?, as_in_table(remote)?);
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let found = columns.nth(1)? == local && columns.next()? == remote;
        found.then(|| columns.nth(6)?.parse().ok())?
    })
}

fn as_in_table(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), address.port()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F43 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41001 1
   1: 0B00007F:C350 0100007F:1F44 06 00000000:00000000 00:00000000 00000000     0        0 0 3
   2: 0B00007F:C350 0100007F:1F43 01 00000000:00000000 00:00000000 00000000  1000        0 41002 1";

    #[test]
    fn the_inode_is_found_by_both_addresses() {
        let inode =
            |local: &str, remote: &str| inode_of(TABLE, local.parse().unwrap(), remote.parse().unwrap());
        assert_eq!(inode("127.0.0.11:50000", "127.0.0.1:8003"), Some(41002));
        assert_eq!(inode("127.0.0.11:50000", "127.0.0.1:8005"), None);
        assert_eq!(inode("127.0.0.1:50000", "127.0.0.1:8003"), None);
    }

    #[tokio::test]
    async fn a_connection_is_traced_to_the_process_that_opened_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_accepted, source) = listener.accept().await.unwrap();
        assert_eq!(client.local_addr().unwrap(), source);
        let dialled = listener.local_addr().unwrap();
        assert_eq!(owner_of(source, dialled, &[1, std::process::id()]), Some(1));
        assert_eq!(owner_of(source, dialled, &[1]), None);
    }

    #[tokio::test]
    async fn a_cut_link_holds_bytes_until_it_is_healed() {
        let real = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let network = Network::new(2);
        // This process dials, so it is node 0 here.
        network.set_pid(0, std::process::id());
        network.stand_before(1, free, real.local_addr().unwrap()).await.unwrap();

        let mut client = TcpStream::connect(free).await.unwrap();
        let (mut server, _) = real.accept().await.unwrap();
        client.write_all(b"before").await.unwrap();
        let mut before = [0; 6];
        server.read_exact(&mut before).await.unwrap();
        assert_eq!(&before, b"before");

        network.partition(&[&[0], &[1]]);
        client.write_all(b"held").await.unwrap();
        let mut held = [0; 4];
        let early =
            tokio::time::timeout(std::time::Duration::from_millis(100), server.read_exact(&mut held)).await;
        assert!(early.is_err(), "bytes passed a cut link");

        network.heal();
        server.read_exact(&mut held).await.unwrap();
        assert_eq!(&held, b"held");
    }
}
