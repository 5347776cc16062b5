//! `starling rollout drop-learning`: forget the rewards of a time window.

use clap::Args;
use starling_proto::admin::DropRolloutLearningRequest;

use super::super::connection::{new_request_id, rollouts};
use super::super::{CliError, output};
use super::moment;

/// Which window.
#[derive(Debug, Args)]
#[command(after_help = "\
Rewards are kept in slices (a bandit's: an eighth of its half-life, at most an hour): every slice that
the window touches is forgotten.

Examples:
  starling rollout drop-learning digits-bandit --from '2h ago' --to '1h ago'
  starling rollout drop-learning digits-bandit --from 2026-11-25T14:00:00Z --to now")]
pub struct DropArgs {
    /// The rollout
    name: String,
    /// When the rewards to forget began to be credited: RFC 3339, or `2h ago`
    #[arg(long, value_name = "MOMENT", value_parser = moment::parse)]
    from: u64,
    /// When they ended: RFC 3339, `1h ago` or `now`
    #[arg(long, value_name = "MOMENT", value_parser = moment::parse)]
    to: u64,
}

pub(super) async fn run(server: &str, args: DropArgs) -> Result<(), CliError> {
    let DropArgs { name, from, to } = args;
    let request = DropRolloutLearningRequest {
        name: name.clone(),
        from_unix_us: from,
        to_unix_us: to,
        request_id: new_request_id(),
    };
    let answer = rollouts(server).await?.drop_rollout_learning(request).await?.into_inner();
    let window = format!("{} to {}", moment::shown(from), moment::shown(to));
    if answer.changed {
        return output::print_line(&format!(
            "rollout {name} has forgotten the rewards of {window} (log index {}); `starling rollout history {name}` says how many",
            answer.log_index
        ));
    }
    output::print_line(&format!("rollout {name} has no rewards of {window}"))
}
