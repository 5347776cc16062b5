//! `starling rollout`: start, watch and steer rollouts.

mod dry_run;
mod examples;
mod history;
mod learning;
mod moment;
mod start;
mod status;
mod steer;
mod view;
mod watch;
mod words;

use clap::{Args, Subcommand};
use starling_proto::admin::{ListRolloutsRequest, Rollout};

use super::connection::rollouts;
use super::output::{self, OutputFormat};
use super::{CliError, get};

pub(super) use dry_run::dry_run_lines;
pub(super) use words::ending_words;

/// What people type first.
pub const EXAMPLES: &str = "\
Examples:
  starling rollout start -f digits-v2.yaml
  starling rollout watch digits-v2
  starling rollout status digits-v2 --wait -o json
  starling rollout pause digits-v2
  starling rollout promote digits-v2
  starling rollout undo digits-v2";

/// What can be done with rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Begin a rollout from a manifest, or one that is over once more
    Start(start::StartArgs),
    /// How one stands, once; with --wait when it is over or needs a person
    Status(status::StatusArgs),
    /// How one stands, live, until it is over
    Watch(watch::WatchArgs),
    /// Stop going on; gates still roll back
    Pause(NameArgs),
    /// Go on after a pause or a hold
    Resume(NameArgs),
    /// End this stage now, approve of it, or name the winner
    Promote(steer::PromoteArgs),
    /// Give the stable version everything back
    Abort(steer::AbortArgs),
    /// Go back to what was before it; aborts one that is not over
    Undo(NameArgs),
    /// What happened to one, why, and the numbers behind it
    History(history::HistoryArgs),
    /// Show requests on which a shadow did not agree with the live version
    Examples(examples::ExamplesArgs),
    /// List what is known
    List(ListArgs),
    /// Change the arms of an experiment
    #[command(subcommand)]
    Arms(steer::ArmsCommand),
    /// Forget the rewards that were credited in a time
    DropLearning(learning::DropArgs),
}

/// Which rollout.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Its name, as `starling rollout list` shows it
    name: String,
}

/// Which rollouts.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of this model only
    model: Option<String>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Answer from the node's own state, without asking a quorum
    #[arg(long)]
    stale: bool,
}

/// Carries it out.
pub async fn run(server: &str, command: RolloutCommand) -> Result<(), CliError> {
    match command {
        RolloutCommand::Start(args) => start::run(server, args).await,
        RolloutCommand::Status(args) => status::run(server, args).await,
        RolloutCommand::Watch(args) => watch::run(server, args).await,
        RolloutCommand::Pause(args) => steer::pause(server, args.name).await,
        RolloutCommand::Resume(args) => steer::resume(server, args.name).await,
        RolloutCommand::Promote(args) => steer::promote(server, args).await,
        RolloutCommand::Abort(args) => steer::abort(server, args).await,
        RolloutCommand::Undo(args) => steer::undo(server, args.name).await,
        RolloutCommand::History(args) => history::run(server, args).await,
        RolloutCommand::Examples(args) => examples::run(server, args).await,
        RolloutCommand::List(args) => {
            list(server, args.output, args.model.unwrap_or_default(), args.stale).await
        }
        RolloutCommand::Arms(command) => steer::arms(server, command).await,
        RolloutCommand::DropLearning(args) => learning::run(server, args).await,
    }
}

const COLUMNS: &[&str] =
    &["rollout", "model", "strategy", "versions", "state", "stage", "weights", "started"];

/// Prints all that are known, or those of one model.
pub async fn list(server: &str, format: OutputFormat, model: String, stale: bool) -> Result<(), CliError> {
    let request = ListRolloutsRequest { model, stale };
    let answer = rollouts(server).await?.list_rollouts(request).await?.into_inner();
    output::print(format, &answer.rollouts, COLUMNS, |rollouts| rollouts.iter().map(row).collect())
}

fn row(rollout: &Rollout) -> Vec<String> {
    let weights = get::weights(&rollout.weights);
    vec![
        rollout.name.clone(),
        rollout.spec.as_ref().map(|spec| spec.model.clone()).unwrap_or_default(),
        words::strategy(rollout).to_owned(),
        words::versions(rollout),
        words::state(rollout),
        words::stage(rollout),
        if weights.is_empty() { "-".to_owned() } else { weights },
        moment::shown(rollout.started_unix_us),
    ]
}
