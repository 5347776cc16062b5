//! `starling rollout status`: once, or when it is over or needs a person. Its
//! exit code is for pipelines.

use std::time::{Duration, Instant};

use clap::Args;
use starling_proto::admin::{GetRolloutRequest, Rollout, RolloutEnding, RolloutPhase};

use super::super::connection::rollouts;
use super::super::output::{self, OutputFormat};
use super::super::{CliError, duration};
use super::{view, words};

const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Which, and how.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes with --wait:
  0  promoted or completed
  6  still running when the time was up
  7  rolled back, aborted or undone
  8  held or paused: a person has to decide
Without --wait it is 0 whatever the answer.

Example: starling rollout status digits-v2 -o json --wait --timeout 2h")]
pub struct StatusArgs {
    /// Its name
    name: String,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Wait until it is over, held or paused
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 90s or 2h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::millis)]
    timeout: u64,
    /// Answer from the node's own state, without what only the leader knows
    #[arg(long)]
    stale: bool,
}

/// Asks, and prints.
pub(super) async fn run(server: &str, args: StatusArgs) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_millis(args.timeout);
    let mut last_failure = None;
    loop {
        match ask(server, &args).await {
            Ok(rollout) => {
                if !args.wait || ends_waiting(&rollout) || Instant::now() >= deadline {
                    print(&rollout, args.output)?;
                    return if args.wait { outcome(&rollout) } else { Ok(()) };
                }
            }
            // While waiting, a node may restart and a leader may be elected.
            Err(error) if args.wait && passes(&error) && Instant::now() < deadline => {
                last_failure = Some(error)
            }
            Err(error) => return Err(last_failure.take().unwrap_or(error)),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn ask(server: &str, args: &StatusArgs) -> Result<Rollout, CliError> {
    let request = GetRolloutRequest { name: args.name.clone(), stale: args.stale };
    Ok(rollouts(server).await?.get_rollout(request).await?.into_inner())
}

fn passes(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Refused(status) => {
            matches!(
                status.code(),
                tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Unknown
            )
        }
        _ => false,
    }
}

fn print(rollout: &Rollout, format: OutputFormat) -> Result<(), CliError> {
    match format {
        OutputFormat::Table | OutputFormat::Wide => output::print_line(&view::lines(rollout).join("\n")),
        OutputFormat::Json | OutputFormat::Yaml => output::print_document(format, rollout),
    }
}

fn ends_waiting(rollout: &Rollout) -> bool {
    rollout.phase() != RolloutPhase::Running
}

/// As an exit code, with the reason on stderr.
pub(super) fn outcome(rollout: &Rollout) -> Result<(), CliError> {
    let name = &rollout.name;
    let why = if rollout.why.is_empty() { String::new() } else { format!(": {}", rollout.why) };
    match (rollout.phase(), rollout.ending()) {
        (RolloutPhase::Finished, RolloutEnding::Promoted | RolloutEnding::Completed) => Ok(()),
        (RolloutPhase::Finished, ending) => {
            Err(CliError::WentBack(format!("rollout {name} was {}{why}", words::ending_words(ending))))
        }
        (RolloutPhase::Held, _) => Err(CliError::NeedsAPerson(format!(
            "rollout {name} is held{why}; `starling rollout resume|promote|abort {name}` decides"
        ))),
        (RolloutPhase::Paused, _) => Err(CliError::NeedsAPerson(format!(
            "rollout {name} is paused{why}; `starling rollout resume {name}` lets it go on"
        ))),
        (RolloutPhase::Running, _) => {
            let waits_for = rollout.next.as_ref().map(|next| next.waits_for.join(", ")).unwrap_or_default();
            let waits_for =
                if waits_for.is_empty() { String::new() } else { format!(": waits for {waits_for}") };
            Err(CliError::TimedOut(format!("rollout {name} still runs{waits_for}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use starling_proto::admin::RolloutNextStep;

    use super::*;

    fn rollout(phase: RolloutPhase, ending: RolloutEnding) -> Rollout {
        Rollout {
            name: "r".into(),
            phase: phase.into(),
            ending: ending.into(),
            why: "because".into(),
            next: Some(RolloutNextStep {
                waits_for: vec!["a".into(), "b".into()],
                ..RolloutNextStep::default()
            }),
            ..Rollout::default()
        }
    }

    #[test]
    fn every_ending_has_its_exit_code_and_says_why() {
        let said = |phase, ending| outcome(&rollout(phase, ending)).unwrap_err();
        for ending in [RolloutEnding::Promoted, RolloutEnding::Completed] {
            assert!(outcome(&rollout(RolloutPhase::Finished, ending)).is_ok());
        }
        let back = said(RolloutPhase::Finished, RolloutEnding::RolledBack);
        assert!(
            matches!(&back, CliError::WentBack(text) if text == "rollout r was rolled back: because"),
            "{back}"
        );
        for ending in [RolloutEnding::Aborted, RolloutEnding::Undone] {
            assert!(matches!(said(RolloutPhase::Finished, ending), CliError::WentBack(_)));
        }
        let held = said(RolloutPhase::Held, RolloutEnding::None);
        assert_eq!(
            held.to_string(),
            "rollout r is held: because; `starling rollout resume|promote|abort r` decides"
        );
        assert!(matches!(held, CliError::NeedsAPerson(_)));
        assert!(matches!(said(RolloutPhase::Paused, RolloutEnding::None), CliError::NeedsAPerson(_)));
        let running = said(RolloutPhase::Running, RolloutEnding::None);
        assert_eq!(running.to_string(), "rollout r still runs: waits for a, b");
        assert!(matches!(running, CliError::TimedOut(_)));
    }
}
