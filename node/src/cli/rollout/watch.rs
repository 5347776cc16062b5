//! `starling rollout watch`: live on a terminal, redrawn in place; one line per
//! change where the output goes somewhere else.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use starling_proto::admin::{Rollout, RolloutPhase, WatchRolloutRequest};
use tonic::Code;

use super::super::connection::rollouts;
use super::super::get::weights;
use super::super::{CliError, duration, output};
use super::{moment, status, view, words};

const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
const RECONNECTS_MAX: u32 = 60;

/// Which, and how often.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal the view is redrawn in place; piped, each change is a line. It ends when the rollout is
over, with the exit codes of `starling rollout status --wait`; Ctrl-C ends it with 0.

Example: starling rollout watch digits-v2")]
pub struct WatchArgs {
    /// Its name
    name: String,
    /// How often to look, such as 500ms
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration::millis)]
    every: u64,
}

/// Watches until it is over or Ctrl-C.
pub(super) async fn run(server: &str, args: WatchArgs) -> Result<(), CliError> {
    let mut screen = Screen::new();
    let ended = tokio::select! {
        ended = follow(server, &args, &mut screen) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    screen.leave();
    match ended {
        Some(last) => status::outcome(&last?),
        None => Ok(()),
    }
}

/// The last view.
async fn follow(server: &str, args: &WatchArgs, screen: &mut Screen) -> Result<Rollout, CliError> {
    let mut failures = 0;
    loop {
        let failure = match follow_once(server, args, screen, &mut failures).await {
            Ok(Some(last)) => return Ok(last),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // The node that was asked may restart: its clients come back.
        failures += 1;
        match failure {
            Some(error) if !passes(&error) || failures > RECONNECTS_MAX => return Err(error),
            _ => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
    }
}

async fn follow_once(
    server: &str,
    args: &WatchArgs,
    screen: &mut Screen,
    failures: &mut u32,
) -> Result<Option<Rollout>, CliError> {
    let request = WatchRolloutRequest { name: args.name.clone(), every_ms: args.every };
    let mut views = rollouts(server).await?.watch_rollout(request).await?.into_inner();
    while let Some(rollout) = views.message().await? {
        *failures = 0;
        screen.show(&rollout)?;
        if rollout.phase() == RolloutPhase::Finished {
            return Ok(Some(rollout));
        }
    }
    Ok(None)
}

fn passes(error: &CliError) -> bool {
    match error {
        CliError::Unreachable { .. } => true,
        CliError::Refused(status) => {
            matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
        }
        _ => false,
    }
}

/// Where views go.
enum Screen {
    /// Redrawn in place.
    Live(ProgressBar),
    /// A line per change: what the last one was about.
    Lines(Option<String>),
}

impl Screen {
    fn new() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::Lines(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self::Live(bar)
    }

    fn show(&mut self, rollout: &Rollout) -> Result<(), CliError> {
        match self {
            Self::Live(bar) => {
                bar.set_message(view::lines(rollout).join("\n"));
                bar.tick();
                Ok(())
            }
            Self::Lines(last) => {
                let state = change_key(rollout);
                if last.as_ref() == Some(&state) {
                    return Ok(());
                }
                *last = Some(state);
                let now = jiff::Timestamp::now().as_microsecond();
                let time = moment::shown(u64::try_from(now).unwrap_or(0));
                output::print_line(&format!("{time}  {}", change_line(rollout)))
            }
        }
    }

    /// The last view stays on the screen, and the cursor is below it.
    fn leave(&self) {
        if let Self::Live(bar) = self {
            bar.abandon();
        }
    }
}

/// What counts as a change: not numbers that grow with every request.
fn change_key(rollout: &Rollout) -> String {
    let verdicts: Vec<&str> = rollout.gates.iter().map(|gate| words::verdict(gate.verdict())).collect();
    let next = rollout.next.as_ref().map(|next| next.what.as_str()).unwrap_or_default();
    format!("{} {} {} {next} {}", rollout.revision, rollout.epoch, verdicts.join(","), rollout.problem)
}

fn change_line(rollout: &Rollout) -> String {
    let mut parts = vec![format!("{}, stage {}", words::state(rollout), words::stage(rollout))];
    if !rollout.weights.is_empty() {
        parts.push(weights(&rollout.weights));
    }
    for version in &rollout.versions {
        let mut line =
            format!("{}: {} requests, {} errors", version.version, version.requests, version.errors);
        if let (rewards @ 1.., Some(mean)) = (version.rewards, version.reward_mean) {
            line.push_str(&format!(", {rewards} rewards of {}", words::number(mean)));
        }
        parts.push(line);
    }
    for report in &rollout.gates {
        let gate = words::gate(&report.gate.unwrap_or_default());
        parts.push(format!("{gate} of {}: {}", report.version, words::verdict(report.verdict())));
    }
    if !rollout.why.is_empty() {
        parts.push(format!("why: {}", rollout.why));
    }
    if !rollout.problem.is_empty() {
        parts.push(format!("problem: {}", rollout.problem));
    }
    if let Some(next) = rollout.next.as_ref().filter(|_| rollout.phase() != RolloutPhase::Finished) {
        let waits_for = next.waits_for.join(", ");
        let waits_for = if waits_for.is_empty() { waits_for } else { format!(", waits for {waits_for}") };
        parts.push(format!("next: {}{waits_for}", next.what));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use starling_proto::admin::RolloutVerdict;

    use super::*;

    #[test]
    fn piped_a_change_is_one_line_and_growing_counts_are_none() {
        let rollout = view::tests::canary();
        assert_eq!(
            change_line(&rollout),
            "running, stage 1 of 2 (shift); v1=90% v2=10%; v1: 9000 requests, 0 errors; v2: 1000 requests, 5 errors; \
             errorRate <= 1% of v2: pass; latencyP99 <= 1.2x of v2: inconclusive; \
             next: v2 gets 100 %, waits for 90 more samples of latencyP99"
        );
        let mut later = rollout.clone();
        later.versions[0].requests += 1;
        if let Some(next) = &mut later.next {
            next.waits_for = vec!["80 more samples".into()];
        }
        assert_eq!(change_key(&later), change_key(&rollout));
        later.gates[1].verdict = RolloutVerdict::Fail.into();
        assert_ne!(change_key(&later), change_key(&rollout));
    }
}
