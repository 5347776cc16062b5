//! What the home of decisions knows of their rewards, and how it stays so
//! through any crash.
//!
//! One journal says everything: each piece of feedback that was taken with what
//! it was credited to, and marks: all credits since the mark before are the delta
//! of this number. So a delta is never written by itself, and is the same each
//! time it is made again. A checkpoint stands for the journal before a segment.
//!
//! Nothing may be answered before [`Home::sync`], and no delta be proposed before
//! [`Home::seal`] has returned. After an error the home must be opened anew.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use starling_raft::state::decision::Decision;
use starling_raft::state::{LogIndex, LogTime};

use super::boots::{Age, Boots};
use super::deltas::{Cell, cluster_of};
use super::disk::Disk;
use super::item::{Answer, Feedback, Verdict};
use super::learnt::{DecisionKey, Learnt, Sealed};
use super::ledger::{Credit, Ledger};
use super::records::{Checkpoint, Content, Credited, Entry, Kept, StoredBoots};
use super::rewarded::{Rewarded, Standing};
use super::segments::{LaneError, Position, Segments};
use super::verdict::{Ruling, judge};

const JOURNAL: &str = "journal";
const ASIDE: &str = "aside";
const CHECKPOINT: &str = "checkpoint";
const BOOTS: &str = "boots";
/// Sealed deltas that wait for the log; more feedback is refused then.
pub const DELTAS_WAITING_MAX: usize = 64;

/// Bounds of a home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HomeLimits {
    /// Decisions older than this are not rewarded any more.
    pub horizon: Duration,
    /// Of one segment of the journal; one or two are read back at a start.
    pub segment_bytes: u64,
    /// Of the journal. Beyond, its oldest segments are removed: what was credited
    /// there cannot be retracted any more.
    pub journal_bytes: u64,
    /// Of what was kept without being credited; the oldest is removed.
    pub aside_bytes: u64,
}

/// What the world says while feedback is judged.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The newest applied state.
    pub ledger: &'a dyn Ledger,
    /// Its time.
    pub log_time: LogTime,
    /// The entry it is of.
    pub applied: LogIndex,
    /// For people.
    pub unix_micros: u64,
    /// Decisions of this life of the node.
    pub decided: u64,
}

/// What was answered, and the delta after whose commit it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// To be given to whoever asked, after [`Home::sync`].
    pub answer: Answer,
    /// `None`: nothing was credited.
    pub delta: Option<u64>,
}

/// See the head of this file.
pub struct Home<D> {
    disk: D,
    limits: HomeLimits,
    journal: Segments,
    aside: Segments,
    learnt: Learnt,
    boots: Boots,
    /// There is nothing here, and this is not the node's first start.
    has_lost_its_place: bool,
    /// The journal's last segment is full.
    checkpoint_due: bool,
}

impl<D: Disk> Home<D> {
    /// Reads what is there. `boot`: how often the node has started.
    pub fn open(mut disk: D, boot: u32, limits: HomeLimits) -> Result<Self, LaneError> {
        let mut journal = Segments::open(&mut disk, JOURNAL, limits.segment_bytes)?;
        let aside = Segments::open(&mut disk, ASIDE, limits.segment_bytes)?;
        let boots = Boots::open(boot, limits.horizon, read_checked::<StoredBoots>(&disk, BOOTS)?);
        let checkpoint = read_checked::<Checkpoint>(&disk, CHECKPOINT)?;
        let has_lost_its_place = checkpoint.is_none() && journal.is_empty() && boot > 1;
        let checkpoint = checkpoint.unwrap_or_default();
        // What the checkpoint stands for must not be appended to.
        while journal.last_segment() < checkpoint.from_segment {
            journal.begin_segment();
        }
        let rewarded = Rewarded::open(&disk)?;
        let mut learnt = Learnt::at(&checkpoint, rewarded).ok_or_else(|| damaged(CHECKPOINT))?;
        let from = Position { segment: checkpoint.from_segment, byte: 0 };
        let mut failed = None;
        journal.scan(&disk, from, u64::MAX, |record, next| {
            let folded = match Entry::decode(record) {
                Ok(Entry { content: Some(content) }) => {
                    learnt.fold(&disk, next.segment, &content).map_err(LaneError::Io)
                }
                _ => Err(damaged(JOURNAL)),
            };
            failed = folded.err();
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        disk.replace(BOOTS, &checked(&boots.stored()))?;
        Ok(Self { disk, limits, journal, aside, learnt, boots, has_lost_its_place, checkpoint_due: false })
    }

    /// Nothing may be taken before [`Home::go_on_after`] has said where to go on.
    pub fn has_lost_its_place(&self) -> bool {
        self.has_lost_its_place
    }

    /// The log has seen deltas of this node up to this number. Only a home that
    /// has lost its place takes its word; another knows better.
    pub fn go_on_after(&mut self, number: u64) -> Result<(), LaneError> {
        if self.has_lost_its_place {
            self.write(Content::Committed(number))?;
            self.has_lost_its_place = false;
        }
        Ok(())
    }

    /// No more is to be taken until the log has confirmed some deltas.
    pub fn is_full(&self) -> bool {
        self.learnt.sealed.len() >= DELTAS_WAITING_MAX
    }

    /// Judges feedback about decisions of this node, in order, and takes it.
    pub fn take(&mut self, items: &[Feedback], moment: Moment<'_>) -> Result<Vec<Taken>, LaneError> {
        let mut credited = self.credited_to_be_taken_back(items)?;
        let mut taken = Vec::with_capacity(items.len());
        for feedback in items {
            taken.push(self.take_one(feedback, moment, &mut credited)?);
        }
        Ok(taken)
    }

    /// Feedback about decisions that no node can judge.
    pub fn keep_aside(&mut self, feedback: &Feedback, verdict: Verdict, unix_micros: u64) {
        self.aside.append(&Kept::new(feedback, verdict, unix_micros).encode_to_vec());
    }

    /// What was taken is durable.
    pub fn sync(&mut self) -> Result<(), LaneError> {
        if self.journal.has_unsynced() {
            self.checkpoint_due = self.journal.sync(&mut self.disk)?;
        }
        if self.aside.has_unsynced() && self.aside.sync(&mut self.disk)? {
            self.aside.begin_segment();
            self.aside.keep_within(&mut self.disk, self.limits.aside_bytes, u64::MAX)?;
        }
        Ok(())
    }

    /// Closes the open delta, if anything was credited, and makes everything
    /// durable. The first that the log has not confirmed; made again after a
    /// crash, it is the same.
    pub fn seal(&mut self) -> Result<Option<&Sealed>, LaneError> {
        if self.learnt.sealed.is_empty() && !self.learnt.open.is_empty() {
            self.close_delta()?;
        }
        self.sync()?;
        Ok(self.learnt.sealed.front())
    }

    /// The log has confirmed all deltas up to this one.
    pub fn committed(&mut self, number: u64) -> Result<(), LaneError> {
        if self.learnt.sealed.front().is_some_and(|first| first.number <= number) {
            // Durable with whatever comes next: until then the delta is proposed again.
            self.write(Content::Committed(number))?;
        }
        Ok(())
    }

    /// Marks the time, checkpoints, forgets what is too old. Every few seconds.
    pub fn keep_house(&mut self, log_time: LogTime, decided: u64) -> Result<(), LaneError> {
        self.sync()?;
        if self.boots.mark(log_time, decided) {
            self.disk.replace(BOOTS, &checked(&self.boots.stored()))?;
        }
        if self.checkpoint_due {
            self.checkpoint()?;
        }
        for (boot, last) in self.boots.forget(log_time) {
            self.learnt.rewarded.forget_up_to(&mut self.disk, boot, last)?;
        }
        Ok(())
    }

    /// The node decides no more.
    pub fn end(&mut self, log_time: LogTime, decided: u64) -> Result<(), LaneError> {
        self.boots.end(log_time, decided);
        self.sync()?;
        Ok(self.disk.replace(BOOTS, &checked(&self.boots.stored()))?)
    }

    /// Of the journal and of what was kept without being credited.
    pub fn bytes(&self) -> u64 {
        self.journal.bytes() + self.aside.bytes()
    }

    fn take_one(
        &mut self,
        feedback: &Feedback,
        moment: Moment<'_>,
        credited: &mut HashMap<DecisionKey, Option<Option<Credited>>>,
    ) -> Result<Taken, LaneError> {
        let Decision { boot, sequence, epoch, .. } = feedback.decision;
        let age = match self.boots.age(moment.log_time, moment.decided, boot, sequence) {
            Age::Young if epoch.get() > moment.applied.get() => {
                Age::Never(format!("its epoch {epoch} has not come yet"))
            }
            age => age,
        };
        let standing = match age {
            Age::Young => self.learnt.rewarded.standing(&self.disk, boot, sequence)?,
            Age::Late(_) | Age::Never(_) => Standing::default(),
        };
        let kept = |verdict| Kept::new(feedback, verdict, moment.unix_micros);
        let without_delta = |answer| Ok(Taken { answer, delta: None });
        let (kept, answer) = match judge(feedback, age, standing, moment.ledger) {
            Ruling::Refuse(answer) => return without_delta(answer),
            Ruling::Duplicate => {
                let answer = Answer::plain(Verdict::Duplicate);
                return Ok(Taken { answer, delta: Some(self.last_delta()) });
            }
            Ruling::Aside(answer) => {
                self.keep_aside(feedback, answer.verdict, moment.unix_micros);
                return without_delta(answer);
            }
            Ruling::Credit(credit, reward) => {
                let credit = Some(Credited::new(&cell_of(credit, feedback), reward.units()));
                (Kept { credit, ..kept(Verdict::Recorded) }, Answer::plain(Verdict::Recorded))
            }
            Ruling::Uncredited(answer) => (kept(answer.verdict), answer),
            Ruling::NeverCredit => (kept(Verdict::Retracted), Answer::plain(Verdict::Retracted)),
            Ruling::TakeBack => match credited.get(&(boot, sequence)).cloned().flatten() {
                Some(credit) => {
                    (Kept { credit, ..kept(Verdict::Retracted) }, Answer::plain(Verdict::Retracted))
                }
                None => {
                    self.keep_aside(feedback, Verdict::Late, moment.unix_micros);
                    let reason = "what its reward was credited to is not kept any more";
                    return without_delta(Answer::because(Verdict::Late, reason));
                }
            },
        };
        if !feedback.retract
            && let Some(wanted) = credited.get_mut(&(boot, sequence))
        {
            *wanted = Some(kept.credit.clone());
        }
        let delta = kept.credit.as_ref().map(|_| self.learnt.next_delta);
        self.write(Content::Kept(kept))?;
        if self.learnt.open.is_full() {
            self.close_delta()?;
        }
        Ok(Taken { answer, delta })
    }

    fn write(&mut self, content: Content) -> Result<(), LaneError> {
        let segment = self.journal.last_segment();
        self.learnt.fold(&self.disk, segment, &content)?;
        self.journal.append(&Entry { content: Some(content) }.encode_to_vec());
        Ok(())
    }

    fn close_delta(&mut self) -> Result<(), LaneError> {
        self.write(Content::Sealed(self.learnt.next_delta))
    }

    /// With it all that was credited until now is committed; 0: it is.
    fn last_delta(&self) -> u64 {
        match self.learnt.open.is_empty() {
            false => self.learnt.next_delta,
            true => self.learnt.sealed.back().map_or(0, |sealed| sealed.number),
        }
    }

    /// What the decisions that are to be retracted were credited to, by decision:
    /// that, and no other value, is taken back. `None`: not found (yet).
    /// `Some(None)`: nobody was credited. One look at the journal for all of them.
    fn credited_to_be_taken_back(
        &mut self,
        items: &[Feedback],
    ) -> Result<HashMap<DecisionKey, Option<Option<Credited>>>, LaneError> {
        let retractions = items.iter().filter(|feedback| feedback.retract);
        let keys = retractions.map(|feedback| (feedback.decision.boot, feedback.decision.sequence));
        let mut found: HashMap<DecisionKey, Option<Option<Credited>>> = keys.map(|key| (key, None)).collect();
        if found.is_empty() {
            return Ok(found);
        }
        let keys: Vec<DecisionKey> = found.keys().copied().collect();
        let mut missing = 0;
        let mut rewarded = Vec::new();
        for (boot, sequence) in keys {
            if self.learnt.rewarded.standing(&self.disk, boot, sequence)?.rewarded {
                rewarded.push((boot, sequence));
                missing += 1;
            }
        }
        self.journal.flush(&mut self.disk)?;
        for segment in self.learnt.segments_with(&rewarded) {
            self.journal.scan(&self.disk, Position { segment, byte: 0 }, segment, |record, _| {
                let Ok(Entry { content: Some(Content::Kept(kept)) }) = Entry::decode(record) else {
                    return true;
                };
                if !kept.retract
                    && let Some(wanted) = found.get_mut(&(kept.boot, kept.sequence))
                {
                    *wanted = Some(kept.credit);
                    missing -= 1;
                }
                missing > 0
            })?;
            if missing == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// The last segment is full: what came until now is summed up, and another
    /// is begun.
    fn checkpoint(&mut self) -> Result<(), LaneError> {
        self.learnt.rewarded.save(&mut self.disk)?;
        let from_segment = self.journal.last_segment() + 1;
        self.disk.replace(CHECKPOINT, &checked(&self.learnt.checkpoint(from_segment)))?;
        self.journal.begin_segment();
        self.journal.keep_within(&mut self.disk, self.limits.journal_bytes, from_segment)?;
        self.learnt.forget_segments_before(self.journal.first_segment());
        self.checkpoint_due = false;
        Ok(())
    }
}

fn cell_of(credit: Credit, feedback: &Feedback) -> Cell {
    Cell {
        rollout: credit.rollout,
        started_at: credit.started_at,
        arm: credit.arm,
        epoch: credit.epoch,
        slice: credit.slice,
        cluster: if credit.clustered { cluster_of(feedback) } else { 0 },
    }
}

/// Checksum before it.
fn checked(message: &impl Message) -> Vec<u8> {
    let content = message.encode_to_vec();
    let mut bytes = crc32c::crc32c(&content).to_le_bytes().to_vec();
    bytes.extend_from_slice(&content);
    bytes
}

fn read_checked<M: Message + Default>(disk: &impl Disk, name: &str) -> Result<Option<M>, LaneError> {
    let bytes = match disk.read(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (crc, content) = bytes.split_first_chunk::<4>().ok_or_else(|| damaged(name))?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged(name));
    }
    M::decode(content).map(Some).map_err(|_| damaged(name))
}

fn damaged(name: &str) -> LaneError {
    LaneError::Damaged { name: name.to_owned(), byte: 0 }
}
