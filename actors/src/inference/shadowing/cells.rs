//! What is counted of copies, per shadow and epoch: how many were made, what
//! became of each, how many agreed, output by output. Everything is additive, so
//! the counts of all nodes merge exactly.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_proto::peer::traffic_report::{ShadowCell as WireCell, shadow_cell};
use starling_raft::state::Ordinal;

use super::comparison::OutputVerdict;
use crate::inference::latency_sketch::LatencySketch;
use crate::inference::routing_table::VersionId;
use crate::inference::traffic::{CellKey, Counts, Ledger, StageStarts};

/// Outputs of one shadow that are counted by themselves; further ones are counted
/// together under [`FURTHER_OUTPUTS`].
pub const OUTPUTS_MAX: usize = 64;
/// No output has this name.
pub const FURTHER_OUTPUTS: &str = "";
/// Cells of one node. What would be more is not counted.
pub const CELLS_MAX: usize = 512;
/// Longer names of outputs are cut.
const NAME_BYTES_MAX: usize = 256;

/// Why a copy was not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// As many copies wait as may, or as many of this shadow.
    QueueFull,
    /// The copies that wait have as many bytes as they may.
    QueueBytes,
    /// Requests wait on this node.
    NodeBusy,
    /// Requests wait for the version, or as many copies as may.
    VersionBusy,
    /// It waited longer than a copy may take.
    TooLate,
    /// No live node has the version.
    NoInstance,
    /// As many copies are at other nodes as may.
    PeersBusy,
    /// The node stopped.
    Stopped,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::QueueFull,
        Self::QueueBytes,
        Self::NodeBusy,
        Self::VersionBusy,
        Self::TooLate,
        Self::NoInstance,
        Self::PeersBusy,
        Self::Stopped,
    ];

    /// As metrics and reports say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::QueueBytes => "queue_bytes",
            Self::NodeBusy => "node_busy",
            Self::VersionBusy => "version_busy",
            Self::TooLate => "too_late",
            Self::NoInstance => "no_instance",
            Self::PeersBusy => "peers_busy",
            Self::Stopped => "stopped",
        }
    }
}

/// How often an output was compared, and agreed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputCount {
    /// Answers that one of the two had it in.
    pub compared: u64,
    /// Those of them in which it agreed.
    pub agreed: u64,
}

/// Counts of one shadow at one epoch. `copies` is the sum of `compared`, `errors`
/// and all that were dropped: a copy counts when its fate is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShadowCell {
    /// Requests that the shadow was to see.
    pub copies: u64,
    /// Those that it answered, as the live version did.
    pub compared: u64,
    /// Answers of which every output agreed.
    pub agreed: u64,
    /// Copies that the shadow refused, failed at, or did not answer in time.
    pub errors: u64,
    /// Copies that were not run.
    pub dropped: BTreeMap<DropReason, u64>,
    /// By output.
    pub outputs: BTreeMap<String, OutputCount>,
    /// From the start of a copy to the shadow's answer. Copies give way to all
    /// else, so this is more than a live request would take.
    pub latency: LatencySketch,
    /// Of the live answers to the requests that were compared, from their arrival.
    pub live_latency: LatencySketch,
}

impl ShadowCell {
    /// A copy was answered.
    pub fn compared(&mut self, verdicts: &[OutputVerdict], latency: Duration, live_latency: Duration) {
        self.copies += 1;
        self.compared += 1;
        self.agreed += u64::from(verdicts.iter().all(|verdict| verdict.difference.is_none()));
        for verdict in verdicts {
            let count = OutputCount { compared: 1, agreed: u64::from(verdict.difference.is_none()) };
            self.add_output(&verdict.output, count);
        }
        self.latency.record(latency);
        self.live_latency.record(live_latency);
    }

    /// A copy was not answered.
    pub fn failed(&mut self) {
        self.copies += 1;
        self.errors += 1;
    }

    /// Copies were not run.
    pub fn dropped(&mut self, reason: DropReason, copies: u64) {
        self.copies = self.copies.saturating_add(copies);
        let dropped = self.dropped.entry(reason).or_default();
        *dropped = dropped.saturating_add(copies);
    }

    /// Copies that were not run, for whatever reason.
    pub fn dropped_copies(&self) -> u64 {
        self.dropped.values().fold(0, |sum, copies| sum.saturating_add(*copies))
    }

    fn add_output(&mut self, name: &str, count: OutputCount) {
        let name = cut(name);
        let own = self.outputs.contains_key(name) || self.outputs.len() < OUTPUTS_MAX;
        let name = if own { name } else { FURTHER_OUTPUTS };
        let known = match self.outputs.get_mut(name) {
            Some(known) => known,
            None => self.outputs.entry(name.to_owned()).or_default(),
        };
        known.compared = known.compared.saturating_add(count.compared);
        known.agreed = known.agreed.saturating_add(count.agreed);
    }

    fn to_wire(&self, key: &CellKey) -> WireCell {
        let dropped = |(reason, copies): (&DropReason, &u64)| shadow_cell::Dropped {
            reason: reason.as_str().to_owned(),
            copies: *copies,
        };
        let output = |(name, count): (&String, &OutputCount)| shadow_cell::Output {
            name: name.clone(),
            compared: count.compared,
            agreed: count.agreed,
        };
        WireCell {
            model_id: key.version.model_id,
            ordinal: key.version.ordinal.get(),
            epoch: key.epoch,
            copies: self.copies,
            compared: self.compared,
            agreed: self.agreed,
            errors: self.errors,
            dropped: self.dropped.iter().map(dropped).collect(),
            outputs: self.outputs.iter().map(output).collect(),
            latency: Some(self.latency.to_wire()),
            live_latency: Some(self.live_latency.to_wire()),
        }
    }

    /// A reason that this binary does not know stays in `copies` alone.
    fn from_wire(wire: &WireCell) -> Self {
        let mut cell = Self {
            copies: wire.copies,
            compared: wire.compared,
            agreed: wire.agreed,
            errors: wire.errors,
            latency: wire.latency.as_ref().map(LatencySketch::from_wire).unwrap_or_default(),
            live_latency: wire.live_latency.as_ref().map(LatencySketch::from_wire).unwrap_or_default(),
            ..Self::default()
        };
        for dropped in &wire.dropped {
            let known = DropReason::ALL.into_iter().find(|reason| reason.as_str() == dropped.reason);
            if let Some(reason) = known {
                cell.dropped.insert(reason, dropped.copies);
            }
        }
        for output in &wire.outputs {
            let count = OutputCount { compared: output.compared, agreed: output.agreed };
            cell.add_output(&output.name, count);
        }
        cell
    }
}

impl Counts for ShadowCell {
    const CELLS_MAX: usize = CELLS_MAX;

    fn merge(&mut self, other: &Self) {
        self.copies = self.copies.saturating_add(other.copies);
        self.compared = self.compared.saturating_add(other.compared);
        self.agreed = self.agreed.saturating_add(other.agreed);
        self.errors = self.errors.saturating_add(other.errors);
        for (reason, copies) in &other.dropped {
            let dropped = self.dropped.entry(*reason).or_default();
            *dropped = dropped.saturating_add(*copies);
        }
        for (name, count) in &other.outputs {
            self.add_output(name, *count);
        }
        self.latency.merge(&other.latency);
        self.live_latency.merge(&other.live_latency);
    }

    fn requests(&self) -> u64 {
        self.copies
    }
}

impl Ledger<ShadowCell> {
    /// For the wire.
    pub fn to_wire(&self) -> Vec<WireCell> {
        self.cells().map(|(key, cell)| cell.to_wire(key)).collect()
    }

    /// From the wire; what exceeds the bounds is folded or dropped.
    pub fn from_wire(cells: &[WireCell]) -> Self {
        let mut ledger = Self::default();
        ledger.absorb(cells.iter().map(|wire| {
            let version = VersionId { model_id: wire.model_id, ordinal: Ordinal::new(wire.ordinal) };
            (CellKey { version, epoch: wire.epoch }, ShadowCell::from_wire(wire))
        }));
        ledger
    }
}

/// Counts copies on this node.
#[derive(Debug, Default)]
pub struct ShadowRecorder {
    ledger: Mutex<Ledger<ShadowCell>>,
    /// Copies that a request found no room for. Apart, and held for moments only:
    /// a request must not wait for the copier, which gives way to everything.
    refused: Mutex<BTreeMap<(CellKey, DropReason), u64>>,
}

impl ShadowRecorder {
    /// Counts on the copier's thread.
    pub fn count(&self, key: CellKey, count: impl FnOnce(&mut ShadowCell)) {
        if let Some(cell) = lock(&self.ledger).cell(key) {
            count(cell);
        }
    }

    /// Counts a copy that was not taken in, on the way of its request.
    pub fn refuse(&self, key: CellKey, reason: DropReason) {
        let mut refused = lock(&self.refused);
        if refused.len() < CELLS_MAX || refused.contains_key(&(key, reason)) {
            *refused.entry((key, reason)).or_default() += 1;
        }
    }

    /// Everything since the start, without models that are gone.
    pub fn read(&self, exists: impl Fn(u64) -> bool) -> Ledger<ShadowCell> {
        let refused = std::mem::take(&mut *lock(&self.refused));
        let mut ledger = lock(&self.ledger);
        for ((key, reason), copies) in refused {
            if let Some(cell) = ledger.cell(key) {
                cell.dropped(reason, copies);
            }
        }
        ledger.fold_old_epochs(&StageStarts::new());
        ledger.retain_models(exists);
        ledger.clone()
    }
}

/// Counts stay usable when a thread that held the lock has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;
    use starling_proto::peer::TrafficReport;

    use super::*;
    use crate::inference::cluster_traffic::{ClusterTraffic, shadow_cells};
    use crate::inference::shadowing::comparison::Difference;

    const MS: Duration = Duration::from_millis(1);

    fn key(model_id: u64, epoch: u64) -> CellKey {
        CellKey { version: VersionId { model_id, ordinal: Ordinal::new(2) }, epoch }
    }

    fn verdict(output: &str, agrees: bool) -> OutputVerdict {
        let difference = (!agrees).then_some(Difference::Missing);
        OutputVerdict { output: output.to_owned(), difference }
    }

    fn busy_cell() -> ShadowCell {
        let mut cell = ShadowCell::default();
        cell.compared(&[verdict("label", true), verdict("scores", true)], 2 * MS, MS);
        cell.compared(&[verdict("label", true), verdict("scores", false)], 4 * MS, MS);
        cell.failed();
        cell.dropped(DropReason::QueueFull, 3);
        cell
    }

    #[test]
    fn every_copy_counts_once_whatever_became_of_it() {
        let cell = busy_cell();
        assert_eq!((cell.copies, cell.compared, cell.agreed, cell.errors), (6, 2, 1, 1));
        assert_eq!(cell.dropped_copies(), 3);
        assert_eq!(cell.outputs["label"], OutputCount { compared: 2, agreed: 2 });
        assert_eq!(cell.outputs["scores"], OutputCount { compared: 2, agreed: 1 });
        assert_eq!((cell.latency.count(), cell.live_latency.sum_micros()), (2, 2_000));
    }

    #[test]
    fn refused_and_counted_copies_are_read_together_and_once() {
        let recorder = ShadowRecorder::default();
        recorder.count(key(1, 5), ShadowCell::failed);
        recorder.refuse(key(1, 5), DropReason::NodeBusy);
        recorder.refuse(key(1, 5), DropReason::NodeBusy);
        recorder.refuse(key(2, 5), DropReason::QueueFull);
        let ledger = recorder.read(|model_id| model_id == 1);
        let (found, cell) = ledger.cells().next().unwrap();
        assert_eq!((*found, cell.copies, cell.errors), (key(1, 5), 3, 1));
        assert_eq!(cell.dropped, BTreeMap::from([(DropReason::NodeBusy, 2)]));
        assert_eq!(recorder.read(|_| true), ledger);
    }

    #[test]
    fn outputs_beyond_the_bound_are_counted_together() {
        let mut cell = ShadowCell::default();
        let verdicts: Vec<OutputVerdict> =
            (0..OUTPUTS_MAX + 3).map(|index| verdict(&format!("output {index:03}"), true)).collect();
        cell.compared(&verdicts, MS, MS);
        assert_eq!(cell.outputs.len(), OUTPUTS_MAX + 1);
        assert_eq!(cell.outputs[FURTHER_OUTPUTS], OutputCount { compared: 3, agreed: 3 });
    }

    #[test]
    fn the_wire_changes_nothing() {
        let recorder = ShadowRecorder::default();
        recorder.count(key(1, 5), |cell| cell.merge(&busy_cell()));
        recorder.count(key(1, 6), ShadowCell::failed);
        let ledger = recorder.read(|_| true);
        assert_eq!(Ledger::<ShadowCell>::from_wire(&ledger.to_wire()), ledger);
    }

    fn report(node_id: u64, boot: u64, sequence: u64, copies: u64) -> TrafficReport {
        let recorder = ShadowRecorder::default();
        for _ in 0..copies {
            recorder.count(key(1, 5), |cell| cell.compared(&[verdict("label", true)], MS, MS));
        }
        let shadows = recorder.read(|_| true).to_wire();
        TrafficReport { node_id, boot, sequence, shadows, ..TrafficReport::default() }
    }

    #[test]
    fn the_leader_has_the_copies_of_all_nodes_and_of_their_earlier_lives_once() {
        let mut traffic = ClusterTraffic::default();
        traffic.accept(&report(1, 1, 1, 3));
        traffic.accept(&report(1, 1, 1, 3));
        traffic.accept(&report(2, 1, 1, 4));
        traffic.accept(&report(1, 2, 1, 2));
        traffic.accept(&report(1, 1, 9, 100));
        let cells = shadow_cells(&traffic.to_wire());
        assert_eq!(cells.len(), 1);
        assert_eq!((cells[&key(1, 5)].compared, cells[&key(1, 5)].agreed), (9, 9));
        assert_eq!(cells[&key(1, 5)].latency.count(), 9);
        traffic.retain(|_| false, |_| true);
        assert_eq!(shadow_cells(&traffic.to_wire()).len(), 0);
    }

    proptest! {
        #[test]
        fn cells_merge_in_any_order(
            fates in prop::collection::vec((0..4_u8, 0..90_usize, any::<bool>()), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let cell_of = |fates: &[(u8, usize, bool)]| {
                let mut cell = ShadowCell::default();
                for (fate, output, agrees) in fates {
                    match fate {
                        0 => cell.failed(),
                        1 => cell.dropped(DropReason::ALL[output % DropReason::ALL.len()], 2),
                        _ => cell.compared(&[verdict(&format!("{}", output % 9), *agrees)], MS, 2 * MS),
                    }
                }
                cell
            };
            let (left, right) = fates.split_at(cut.index(fates.len() + 1));
            let mut left_first = cell_of(left);
            left_first.merge(&cell_of(right));
            let mut right_first = cell_of(right);
            right_first.merge(&cell_of(left));
            prop_assert_eq!(&left_first, &cell_of(&fates));
            prop_assert_eq!(&right_first, &left_first);
            prop_assert_eq!(left_first.copies, left_first.compared + left_first.errors + left_first.dropped_copies());
        }
    }
}
