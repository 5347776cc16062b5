//! How a version is run, as flags of `starling model push` and in words.

use clap::{Args, ValueEnum};
use serde::Deserialize;
use starling_proto::admin::{BatchingSettings, DeviceKind, InstanceMode, VersionSettings};
use starling_raft::state::models::{PRIORITY_LEVELS_MAX, QUEUE_TIMEOUT_MICROS_MAX};

use super::duration;

/// The settings that are part of a version's identity.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "How the version is run (part of it: other settings need another label)")]
pub struct SettingsArgs {
    /// Rows per run at most; default: measured when it is loaded
    #[arg(long, value_name = "ROWS", default_value_t = 0, hide_default_value = true)]
    max_batch: u32,
    /// How long a batch may wait for more rows, such as 500us or 2ms; default: not at all
    #[arg(long, value_name = "DURATION", value_parser = duration::micros)]
    max_queue_delay: Option<u64>,
    /// The same in microseconds
    #[arg(long, hide = true, conflicts_with = "max_queue_delay")]
    max_queue_delay_us: Option<u64>,
    /// Never run requests together
    #[arg(long)]
    no_batching: bool,
    /// What becomes of a request of more rows than a run may have
    #[arg(long, value_enum, default_value_t)]
    oversize: OversizeWord,
    /// Where its sessions run
    #[arg(long, value_enum, default_value_t)]
    mode: ModeWord,
    /// What its sessions run on
    #[arg(long, value_enum, default_value_t)]
    device: DeviceWord,
    /// Sessions per device; default: one
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    instances: u32,
    /// Intra-op threads per session; default: one
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    threads: u32,
    /// Let intra-op threads spin while they wait: costs cores, saves microseconds
    #[arg(long)]
    spinning: bool,
    /// Requests that may wait; default: the node's max_queue
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_queue: u32,
    /// How long a request that names no timeout may wait, such as 250ms; default: its deadline
    #[arg(long, value_name = "DURATION", value_parser = duration::micros)]
    queue_timeout: Option<u64>,
    /// After which a run is ended, such as 10s; default: the node's max_run_time
    #[arg(long, value_name = "DURATION", value_parser = duration::micros)]
    max_run_time: Option<u64>,
    /// Priority classes, 1 the most urgent; default: one class
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    priority_levels: u32,
    /// The class of a request that names none; default: the least urgent
    #[arg(long, value_name = "LEVEL", default_value_t = 0, hide_default_value = true)]
    default_priority_level: u32,
    /// Leave the starling_ parameters out of responses
    #[arg(long)]
    quiet: bool,
}

/// Where the sessions of a version run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModeWord {
    /// Measured when it is loaded
    #[default]
    Auto,
    /// On every core of the data plane
    Local,
    /// On a thread of its own for each instance
    Dedicated,
}

/// What the sessions of a version run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceWord {
    /// Every device of the node
    #[default]
    Any,
    /// The processors
    Cpu,
    /// The graphics processors; a node without one cannot load it
    Gpu,
}

/// What becomes of a request of more rows than a run may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OversizeWord {
    /// It runs in parts
    #[default]
    Split,
    /// It is refused
    Refuse,
}

impl From<ModeWord> for InstanceMode {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Auto => Self::Auto,
            ModeWord::Local => Self::Local,
            ModeWord::Dedicated => Self::Dedicated,
        }
    }
}

impl From<DeviceWord> for DeviceKind {
    fn from(word: DeviceWord) -> Self {
        match word {
            DeviceWord::Any => Self::Any,
            DeviceWord::Cpu => Self::Cpu,
            DeviceWord::Gpu => Self::Gpu,
        }
    }
}

impl SettingsArgs {
    /// As the wire has them, or what contradicts itself.
    pub fn settings(&self) -> Result<VersionSettings, String> {
        let settings = VersionSettings {
            batching: Some(BatchingSettings {
                max_batch: self.max_batch,
                max_queue_delay_us: self.max_queue_delay.or(self.max_queue_delay_us).unwrap_or_default(),
                disabled: self.no_batching,
                refuse_oversize: self.oversize == OversizeWord::Refuse,
            }),
            instances: self.instances,
            max_queue: self.max_queue,
            max_run_time_ms: self.max_run_time.unwrap_or_default().div_ceil(1_000),
            threads: self.threads,
            spinning: self.spinning,
            mode: InstanceMode::from(self.mode).into(),
            device: DeviceKind::from(self.device).into(),
            priority_levels: self.priority_levels,
            default_priority_level: self.default_priority_level,
            queue_timeout_us: self.queue_timeout.unwrap_or_default(),
            quiet: self.quiet,
        };
        check(&settings).map(|()| settings)
    }
}

/// What the cluster would refuse, said before anything is sent.
pub fn check(settings: &VersionSettings) -> Result<(), String> {
    let VersionSettings { priority_levels, default_priority_level, queue_timeout_us, .. } = *settings;
    if priority_levels > PRIORITY_LEVELS_MAX {
        return Err(format!("{priority_levels} priority levels are more than {PRIORITY_LEVELS_MAX}"));
    }
    if default_priority_level > priority_levels.max(1) {
        return Err(format!(
            "the default priority level is {default_priority_level}, of {} levels",
            priority_levels.max(1)
        ));
    }
    if queue_timeout_us > QUEUE_TIMEOUT_MICROS_MAX {
        return Err(format!(
            "the queue timeout is {}, at most {} is possible",
            duration::from_micros(queue_timeout_us),
            duration::from_micros(QUEUE_TIMEOUT_MICROS_MAX)
        ));
    }
    Ok(())
}

/// What differs from the defaults, in the words of a manifest: `maxBatch 32, mode local`.
/// Empty: nothing does.
pub fn describe(settings: &VersionSettings) -> String {
    let batching = settings.batching.unwrap_or_default();
    let mut facts: Vec<String> = Vec::new();
    let mut fact = |differs: bool, text: String| {
        if differs {
            facts.push(text);
        }
    };
    let duration = duration::from_micros;
    fact(batching.max_batch > 0, format!("maxBatch {}", batching.max_batch));
    fact(batching.max_queue_delay_us > 0, format!("maxQueueDelay {}", duration(batching.max_queue_delay_us)));
    fact(batching.disabled, "no batching".to_owned());
    fact(batching.refuse_oversize, "oversize refuse".to_owned());
    fact(settings.mode() != InstanceMode::Auto, format!("mode {}", word(settings.mode().as_str_name())));
    fact(settings.device() != DeviceKind::Any, format!("device {}", word(settings.device().as_str_name())));
    fact(settings.instances > 0, format!("instances {}", settings.instances));
    fact(settings.threads > 0, format!("threads {}", settings.threads));
    fact(settings.spinning, "spinning".to_owned());
    fact(settings.max_queue > 0, format!("maxQueue {}", settings.max_queue));
    fact(settings.queue_timeout_us > 0, format!("queueTimeout {}", duration(settings.queue_timeout_us)));
    fact(settings.max_run_time_ms > 0, format!("maxRunTime {}", duration(settings.max_run_time_ms * 1_000)));
    fact(settings.priority_levels > 0, format!("priorities {}", settings.priority_levels));
    fact(
        settings.default_priority_level > 0,
        format!("default priority {}", settings.default_priority_level),
    );
    fact(settings.quiet, "quiet".to_owned());
    facts.join(", ")
}

/// `INSTANCE_MODE_LOCAL`: local.
fn word(name: &str) -> String {
    name.rsplit('_').next().unwrap_or(name).to_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn settings(line: &str) -> Result<VersionSettings, String> {
        let words = std::iter::once("push").chain(line.split_whitespace());
        Line::try_parse_from(words).map_err(|error| error.to_string())?.settings.settings()
    }

    #[test]
    fn every_flag_becomes_its_setting() {
        let line = "--max-batch 32 --max-queue-delay 2ms --oversize refuse --mode local --device cpu \
                    --instances 2 --threads 3 --spinning --max-queue 7 --queue-timeout 250ms \
                    --max-run-time 10s --priority-levels 3 --default-priority-level 2 --quiet";
        let expected = VersionSettings {
            batching: Some(BatchingSettings {
                max_batch: 32,
                max_queue_delay_us: 2_000,
                disabled: false,
                refuse_oversize: true,
            }),
            instances: 2,
            max_queue: 7,
            max_run_time_ms: 10_000,
            threads: 3,
            spinning: true,
            mode: InstanceMode::Local.into(),
            device: DeviceKind::Cpu.into(),
            priority_levels: 3,
            default_priority_level: 2,
            queue_timeout_us: 250_000,
            quiet: true,
        };
        assert_eq!(settings(line), Ok(expected));
        assert_eq!(
            describe(&expected),
            "maxBatch 32, maxQueueDelay 2ms, oversize refuse, mode local, device cpu, instances 2, \
             threads 3, spinning, maxQueue 7, queueTimeout 250ms, maxRunTime 10s, priorities 3, \
             default priority 2, quiet"
        );
        assert!(settings("--no-batching").unwrap().batching.unwrap().disabled);
    }

    #[test]
    fn without_flags_nothing_is_set() {
        let defaults =
            VersionSettings { batching: Some(BatchingSettings::default()), ..VersionSettings::default() };
        assert_eq!(settings(""), Ok(defaults));
        assert_eq!(describe(&defaults), "");
    }

    #[test]
    fn typing_mistakes_are_answered_with_what_was_meant() {
        for (line, expected) in [
            ("--mode locl", "a similar value exists: 'local'"),
            ("--devise gpu", "a similar argument exists: '--device'"),
            ("--max-run-time soon", "'soon' is not a duration"),
            ("--priority-levels 65", "more than 64"),
            ("--priority-levels 3 --default-priority-level 4", "is 4, of 3 levels"),
            ("--default-priority-level 2", "is 2, of 1 levels"),
            ("--queue-timeout 25h", "at most 86400s is possible"),
        ] {
            let reason = settings(line).unwrap_err();
            assert!(reason.contains(expected), "{reason} should contain {expected}");
        }
    }
}
