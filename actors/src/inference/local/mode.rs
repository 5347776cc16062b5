//! Local or dedicated: decided once, when a version is loaded, from what was
//! measured then. Pure. A moving average of runs would flap: the same model
//! takes ten times as long for a large batch as for one row.

use std::time::Duration;

use starling_raft::state::models::{InstanceMode, VersionSettings};

use crate::inference::batch_size::SHORT_RUN;

/// A row that takes longer holds up everybody else on its core for too long.
const ROW_TIME_MAX: Duration = Duration::from_micros(250);
/// Together with the weights of other models, these have to go through the caches
/// of the cores that serve requests.
const BYTES_OF_ALL_SESSIONS_MAX: u64 = 256 << 20;

/// Where the requests of a version run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// On the core that received them.
    Local,
    /// On threads of their own.
    Dedicated,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The best run of one row; `None`: it could not be measured.
    pub one_row: Option<Duration>,
    /// The best run of as many rows as a core would run together.
    pub full_batch: Option<Duration>,
    /// Of the model's file.
    pub file_bytes: u64,
    /// The cores run one session, and not one each.
    pub shared: bool,
    /// Cores of the data plane; 0: there is none.
    pub cores: usize,
    /// Its sessions run on a graphics processor.
    pub on_gpu: bool,
}

/// Decides.
pub(crate) fn choose(settings: &VersionSettings, facts: Facts) -> Mode {
    let can_be_local = facts.cores > 0 && !facts.on_gpu;
    let local = match settings.mode {
        InstanceMode::Dedicated => false,
        InstanceMode::Local => can_be_local,
        InstanceMode::Auto => can_be_local && is_as_a_core_runs(settings) && is_small_and_fast(facts),
    };
    if local { Mode::Local } else { Mode::Dedicated }
}

/// A core runs one thing at a time, at once, and knows no classes: who asks for
/// more threads, several instances, or batches that wait asks for dedicated ones.
fn is_as_a_core_runs(settings: &VersionSettings) -> bool {
    settings.threads <= 1
        && settings.instances <= 1
        && settings.max_queue_delay_micros == 0
        && settings.priority_levels <= 1
}

fn is_small_and_fast(facts: Facts) -> bool {
    let fast = facts.one_row.is_some_and(|time| time <= ROW_TIME_MAX)
        && facts.full_batch.is_some_and(|time| time <= SHORT_RUN);
    let sessions = if facts.shared { 1 } else { facts.cores as u64 };
    fast && facts.file_bytes.saturating_mul(sessions) <= BYTES_OF_ALL_SESSIONS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Facts = Facts {
        one_row: Some(Duration::from_micros(3)),
        full_batch: Some(Duration::from_micros(5)),
        file_bytes: 3_000,
        shared: false,
        cores: 2,
        on_gpu: false,
    };

    fn auto(facts: Facts) -> Mode {
        choose(&VersionSettings::default(), facts)
    }

    #[test]
    fn a_small_fast_model_is_local() {
        assert_eq!(auto(TINY), Mode::Local);
        let mlp = Facts {
            one_row: Some(Duration::from_micros(84)),
            full_batch: Some(Duration::from_micros(123)),
            file_bytes: 6_400_000,
            ..TINY
        };
        assert_eq!(auto(mlp), Mode::Local);
    }

    #[test]
    fn a_slow_row_or_a_slow_batch_is_dedicated() {
        let slow_row = Facts { one_row: Some(Duration::from_micros(251)), ..TINY };
        assert_eq!(auto(slow_row), Mode::Dedicated);
        let slow_batch = Facts { full_batch: Some(Duration::from_micros(2_001)), ..TINY };
        assert_eq!(auto(slow_batch), Mode::Dedicated);
    }

    #[test]
    fn what_could_not_be_measured_is_dedicated() {
        assert_eq!(auto(Facts { one_row: None, ..TINY }), Mode::Dedicated);
        assert_eq!(auto(Facts { full_batch: None, ..TINY }), Mode::Dedicated);
    }

    #[test]
    fn the_size_counts_once_per_session() {
        let hundred_megabytes = Facts { file_bytes: 100 << 20, ..TINY };
        assert_eq!(auto(hundred_megabytes), Mode::Local);
        assert_eq!(auto(Facts { cores: 64, ..hundred_megabytes }), Mode::Dedicated);
        assert_eq!(auto(Facts { cores: 64, shared: true, ..hundred_megabytes }), Mode::Local);
    }

    #[test]
    fn the_setting_has_the_last_word() {
        let slow = Facts { one_row: Some(Duration::from_millis(9)), ..TINY };
        let local = VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() };
        assert_eq!(choose(&local, slow), Mode::Local);
        let dedicated = VersionSettings { mode: InstanceMode::Dedicated, ..VersionSettings::default() };
        assert_eq!(choose(&dedicated, TINY), Mode::Dedicated);
    }

    #[test]
    fn without_cores_or_on_a_graphics_processor_there_is_no_local() {
        let local = VersionSettings { mode: InstanceMode::Local, ..VersionSettings::default() };
        assert_eq!(choose(&local, Facts { cores: 0, ..TINY }), Mode::Dedicated);
        assert_eq!(choose(&local, Facts { on_gpu: true, ..TINY }), Mode::Dedicated);
    }

    #[test]
    fn settings_that_only_dedicated_instances_honour_make_it_dedicated() {
        let settings = VersionSettings::default();
        for settings in [
            VersionSettings { threads: 2, ..settings },
            VersionSettings { instances: 2, ..settings },
            VersionSettings { max_queue_delay_micros: 100, ..settings },
            VersionSettings { priority_levels: 2, ..settings },
        ] {
            assert_eq!(choose(&settings, TINY), Mode::Dedicated, "{settings:?}");
        }
    }
}
