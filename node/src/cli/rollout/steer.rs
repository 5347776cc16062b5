//! What people decide about a rollout that is there.

use clap::{Args, Subcommand};
use starling_proto::admin::{
    AbortRolloutRequest, PromoteRolloutRequest, RolloutArm, RolloutRequest, SetRolloutArmsRequest,
    WriteResponse,
};

use super::super::connection::{new_request_id, rollouts};
use super::super::percent::Percent;
use super::super::route::parse_weight;
use super::super::{CliError, output};

/// Which, and how far.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  starling rollout promote digits-v2                 # the next stage; approves of this one
  starling rollout promote digits-v2 --full          # its last stage at once
  starling rollout promote digits-ab --winner v2     # ends an A/B test or a bandit")]
pub struct PromoteArgs {
    /// Its name
    name: String,
    /// Skip all stages that are left
    #[arg(long)]
    full: bool,
    /// Of an A/B test or a bandit: who gets everything, by label or ordinal
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    winner: String,
}

/// Which, and why.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling rollout abort digits-v2 --why 'wrong labels'")]
pub struct AbortArgs {
    /// Its name
    name: String,
    /// For the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
}

/// What can be done to arms.
#[derive(Debug, Subcommand)]
pub enum ArmsCommand {
    /// Set all arms and their weights: those left out are taken out
    Set(ArmsArgs),
}

/// The new arms.
#[derive(Debug, Args)]
#[command(after_help = "Example: starling rollout arms set digits-bandit v1=50% v2=30% v3=20%")]
pub struct ArmsArgs {
    /// The rollout
    name: String,
    /// VERSION=PERCENT, by label or ordinal; they sum to 100
    #[arg(required = true, value_name = "VERSION=PERCENT", value_parser = parse_weight)]
    arms: Vec<(String, Percent)>,
}

pub(super) async fn pause(server: &str, name: String) -> Result<(), CliError> {
    let request = RolloutRequest { name: name.clone(), request_id: new_request_id() };
    let answer = rollouts(server).await?.pause_rollout(request).await?;
    say(&name, answer.into_inner(), "is paused; its gates go on", "was paused or held already")
}

pub(super) async fn resume(server: &str, name: String) -> Result<(), CliError> {
    let request = RolloutRequest { name: name.clone(), request_id: new_request_id() };
    let answer = rollouts(server).await?.resume_rollout(request).await?;
    say(&name, answer.into_inner(), "goes on", "was going on already")
}

pub(super) async fn promote(server: &str, args: PromoteArgs) -> Result<(), CliError> {
    let PromoteArgs { name, full, winner } = args;
    let done =
        if winner.is_empty() { "promoted".to_owned() } else { format!("promoted: {winner} gets everything") };
    let request = PromoteRolloutRequest { name: name.clone(), full, winner, request_id: new_request_id() };
    let answer = rollouts(server).await?.promote_rollout(request).await?;
    say(&name, answer.into_inner(), &done, "did not change")
}

pub(super) async fn abort(server: &str, args: AbortArgs) -> Result<(), CliError> {
    let AbortArgs { name, why } = args;
    let request = AbortRolloutRequest { name: name.clone(), why, request_id: new_request_id() };
    let answer = rollouts(server).await?.abort_rollout(request).await?;
    say(&name, answer.into_inner(), "aborted: the stable version has everything", "did not change")
}

pub(super) async fn undo(server: &str, name: String) -> Result<(), CliError> {
    let request = RolloutRequest { name: name.clone(), request_id: new_request_id() };
    let answer = rollouts(server).await?.undo_rollout(request).await?;
    say(
        &name,
        answer.into_inner(),
        "undone: the route is what it was before",
        "had changed nothing that is left to undo",
    )
}

pub(super) async fn arms(server: &str, command: ArmsCommand) -> Result<(), CliError> {
    let ArmsCommand::Set(ArmsArgs { name, arms }) = command;
    let arm = |(version, weight): &(String, Percent)| RolloutArm {
        name: String::new(),
        version: version.clone(),
        weight_ppm: weight.ppm(),
    };
    let request = SetRolloutArmsRequest {
        name: name.clone(),
        arms: arms.iter().map(arm).collect(),
        request_id: new_request_id(),
    };
    let shown: Vec<String> = arms.iter().map(|(version, weight)| format!("{version}={weight}")).collect();
    let answer = rollouts(server).await?.set_rollout_arms(request).await?;
    let shown = shown.join(" ");
    say(
        &name,
        answer.into_inner(),
        &format!("has the arms {shown}"),
        &format!("already had the arms {shown}"),
    )
}

fn say(name: &str, answer: WriteResponse, done: &str, already: &str) -> Result<(), CliError> {
    let what = if answer.changed { done } else { already };
    output::print_line(&format!("rollout {name} {what} (log index {})", answer.log_index))
}
