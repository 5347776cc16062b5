//! Every metric of the servers, of Raft and of gossip, with its help text.
//! (Those of predictions are defined beside the code that predicts.)

use prometheus::process_collector::ProcessCollector;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use starling_raft::consensus::RaftStatus;

/// The registry, and handles to what is set from this crate. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Others register theirs here.
    pub(crate) registry: Registry,
    /// Answers, by protocol, operation and code.
    pub(crate) requests: IntCounterVec,
    /// Open connections, by port.
    pub(crate) connections: IntGaugeVec,
    /// Connections closed at once because there were too many, by port.
    pub(crate) connections_refused: IntCounterVec,
    /// Whether this node can answer.
    pub(crate) ready: IntGauge,
    raft: RaftMetrics,
}

#[derive(Clone)]
struct RaftMetrics {
    term: IntGauge,
    leader: IntGauge,
    is_leader: IntGauge,
    quorum: IntGauge,
    last_log_index: IntGauge,
    committed_index: IntGauge,
    applied_index: IntGauge,
    snapshot_index: IntGauge,
    purged_index: IntGauge,
    voters: IntGauge,
    learners: IntGauge,
    snapshots_installed: IntGauge,
    live_nodes: IntGauge,
    members: IntGauge,
}

impl Metrics {
    /// Defines and registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        build_info(&registry)?;
        let requests = counters(
            &registry,
            "starling_requests_total",
            "Answers by protocol, operation (gRPC method or REST route) and code (gRPC or HTTP).",
            &["protocol", "operation", "code"],
        )?;
        let connections = IntGaugeVec::new(
            Opts::new("starling_connections", "Open client connections by port."),
            &["port"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        let connections_refused = counters(
            &registry,
            "starling_connections_refused_total",
            "Client connections closed at once because max_connections was reached, by port.",
            &["port"],
        )?;
        let ready = gauge(
            &registry,
            "starling_ready",
            "1 while this node can answer predictions for every version that a route names.",
        )?;
        let raft = RaftMetrics::new(&registry)?;
        Ok(Self { registry, requests, connections, connections_refused, ready, raft })
    }

    /// Sets what is known about Raft and gossip; called before each rendering.
    pub(crate) fn observe_cluster(&self, status: &RaftStatus, live_nodes: usize, members: usize) {
        let raft = &self.raft;
        raft.term.set(as_gauge(status.term));
        raft.leader.set(as_gauge(status.leader.map_or(0, |leader| leader.get())));
        raft.is_leader.set(i64::from(status.is_leader));
        raft.quorum.set(i64::from(status.has_quorum));
        raft.last_log_index.set(as_gauge(status.last_log_index));
        raft.committed_index.set(as_gauge(status.committed_index));
        raft.applied_index.set(as_gauge(status.applied_index));
        raft.snapshot_index.set(as_gauge(status.snapshot_index));
        raft.purged_index.set(as_gauge(status.purged_index));
        raft.voters.set(as_gauge(status.voters.len() as u64));
        raft.learners.set(as_gauge(status.learners.len() as u64));
        raft.snapshots_installed.set(as_gauge(status.snapshots_installed));
        raft.live_nodes.set(as_gauge(live_nodes as u64));
        raft.members.set(as_gauge(members as u64));
    }

    /// In Prometheus' text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = String::with_capacity(16 * 1024);
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl RaftMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| gauge(registry, name, help);
        Ok(Self {
            term: gauge("starling_raft_term", "Raft term at this node.")?,
            leader: gauge("starling_raft_leader_id", "Node id of the leader; 0: none known.")?,
            is_leader: gauge("starling_raft_is_leader", "1 on the leader.")?,
            quorum: gauge(
                "starling_raft_quorum",
                "1 while this node has heard from a quorum (or its leader) within the lease.",
            )?,
            last_log_index: gauge("starling_raft_last_log_index", "Last entry in this node's log.")?,
            committed_index: gauge("starling_raft_committed_index", "Last entry known to be committed.")?,
            applied_index: gauge("starling_raft_applied_index", "Last entry applied to the state.")?,
            snapshot_index: gauge("starling_raft_snapshot_index", "Last entry in the newest snapshot.")?,
            purged_index: gauge("starling_raft_purged_index", "Last entry removed from the log.")?,
            voters: gauge("starling_raft_voters", "Nodes that vote.")?,
            learners: gauge("starling_raft_learners", "Nodes that follow without a vote.")?,
            snapshots_installed: gauge(
                "starling_raft_snapshots_installed",
                "Snapshots installed from a leader since this process started.",
            )?,
            live_nodes: gauge(
                "starling_gossip_live_nodes",
                "Nodes that gossip at this node believes alive, itself included.",
            )?,
            members: gauge("starling_members", "Members of the cluster, as this node has applied the log.")?,
        })
    }
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let opts = Opts::new("starling_build_info", "Always 1; the version is in the label.")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(opts)?;
    info.set(1);
    registry.register(Box::new(info))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_was_observed_is_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics.requests.with_label_values(&["grpc", "ModelInfer", "Ok"]).inc_by(3);
        let status = RaftStatus { term: 7, has_quorum: true, ..RaftStatus::default() };
        metrics.observe_cluster(&status, 2, 3);
        let text = metrics.render().unwrap();
        for line in [
            r#"starling_requests_total{code="Ok",operation="ModelInfer",protocol="grpc"} 3"#,
            "starling_raft_term 7",
            "starling_raft_quorum 1",
            "starling_gossip_live_nodes 2",
            "starling_members 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
