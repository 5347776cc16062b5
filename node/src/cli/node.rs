//! `starling node`: take work away from a node, give it back, take a node out.

use clap::{Args, Subcommand};
use starling_proto::admin::{DrainNodeRequest, RemoveNodeRequest, UndrainNodeRequest, WriteResponse};

use super::connection::{admin, new_request_id};
use super::{CliError, output};

/// What can be done to a node.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Move routing, work and leadership away; the node keeps its seat
    Drain(NodeArgs),
    /// Give work back to a drained node
    Undrain(NodeArgs),
    /// Take a node out for good; its id is never used again
    Remove(NodeArgs),
}

/// Which node.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Its id, as `starling get nodes` shows it
    node_id: u64,
}

/// Carries it out.
pub async fn run(server: &str, command: NodeCommand) -> Result<(), CliError> {
    let mut client = admin(server).await?;
    let request_id = new_request_id();
    let (node_id, done, already, answer) = match command {
        NodeCommand::Drain(NodeArgs { node_id }) => {
            let request = DrainNodeRequest { node_id, request_id };
            (node_id, "draining", "already draining", client.drain_node(request).await?)
        }
        NodeCommand::Undrain(NodeArgs { node_id }) => {
            let request = UndrainNodeRequest { node_id, request_id };
            (node_id, "takes work again", "was not drained", client.undrain_node(request).await?)
        }
        NodeCommand::Remove(NodeArgs { node_id }) => {
            let request = RemoveNodeRequest { node_id, request_id };
            (node_id, "removed", "already removed", client.remove_node(request).await?)
        }
    };
    let WriteResponse { changed, log_index } = answer.into_inner();
    let what = if changed { done } else { already };
    output::print_line(&format!("node {node_id} {what} (log index {log_index})"))
}
