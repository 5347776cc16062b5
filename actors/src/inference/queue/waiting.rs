//! Those who wait, the most urgent class first and within a class in the order
//! in which they came.

use std::collections::VecDeque;
use std::time::Instant;

use super::{ArrivalKind, Job};
use crate::inference::batcher;

/// In ascending order of class and id.
#[derive(Default)]
pub(super) struct Waiting {
    jobs: VecDeque<Job>,
    rows: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// At its place, behind those that are more urgent or came before.
    pub(super) fn insert(&mut self, job: Job) {
        self.rows += job.request.rows;
        let place = place_of(&job);
        if self.jobs.back().is_none_or(|last| place_of(last) < place) {
            self.jobs.push_back(job);
            return;
        }
        let index = self.jobs.partition_point(|waiting| place_of(waiting) < place);
        self.jobs.insert(index, job);
    }

    /// False: it is not here.
    pub(super) fn remove(&mut self, place: (u32, u64)) -> bool {
        let Ok(index) = self.jobs.binary_search_by_key(&place, place_of) else { return false };
        let Some(job) = self.jobs.remove(index) else { return false };
        self.rows -= job.request.rows;
        true
    }

    /// Requests, and their rows, that go before a new one of this class.
    pub(super) fn ahead_of(&self, class: u32) -> (usize, usize) {
        if self.jobs.back().is_none_or(|last| last.class <= class) {
            return self.all();
        }
        let requests = self.jobs.partition_point(|waiting| waiting.class <= class);
        (requests, self.jobs.iter().take(requests).map(|job| job.request.rows).sum())
    }

    /// All requests, and their rows.
    pub(super) fn all(&self) -> (usize, usize) {
        (self.jobs.len(), self.rows)
    }

    /// When the one that has waited longest came.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let (first, last) = (self.jobs.front()?, self.jobs.back()?);
        if first.class == last.class {
            return Some(first.queued_at);
        }
        self.jobs.iter().map(|job| job.queued_at).min()
    }

    /// The newest of the least urgent class, if that is less urgent than `class`.
    pub(super) fn pop_less_urgent_than(&mut self, class: u32) -> Option<Job> {
        let job = self.jobs.pop_back_if(|last| last.class > class)?;
        self.rows -= job.request.rows;
        Some(job)
    }

    /// The first and those that fit with it. `oldest_first`: whoever came first
    /// is the first, whatever its class.
    pub(super) fn take_batch(&mut self, max_rows: usize, oldest_first: bool) -> Vec<Job> {
        if oldest_first {
            self.bring_oldest_to_front();
        }
        let batch = batcher::take_batch(&mut self.jobs, max_rows);
        self.rows -= batch.iter().map(|job| job.request.rows).sum::<usize>();
        batch
    }

    // Out of order until it is taken, which is at once.
    fn bring_oldest_to_front(&mut self) {
        // A copy may starve.
        let asked = (0..self.jobs.len()).filter(|index| self.jobs[*index].kind != ArrivalKind::Copy);
        let oldest = asked.min_by_key(|index| self.jobs[*index].id);
        if let Some(index) = oldest.filter(|index| *index > 0)
            && let Some(job) = self.jobs.remove(index)
        {
            self.jobs.push_front(job);
        }
    }

    pub(super) fn rows_ready(&self, max_rows: usize) -> usize {
        batcher::rows_ready(&self.jobs, max_rows)
    }

    pub(super) fn take_all(&mut self) -> Vec<Job> {
        self.rows = 0;
        Vec::from(std::mem::take(&mut self.jobs))
    }
}

fn place_of(job: &Job) -> (u32, u64) {
    (job.class, job.id)
}
