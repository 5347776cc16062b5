//! The root of the supervision tree, and the only one who changes the table of
//! loaded versions.
//!
//! ```text
//! InferenceSupervisor → VersionActor per version → InstanceActor per instance → thread
//! ```
//!
//! Actors have no names: ractor's registry is one per process, and a process may
//! hold several hosts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use starling_raft::state::Signature;
use starling_raft::state::models::VersionSettings;

use super::host::{LoadedVersion, VersionKey};
use super::metrics::InferenceMetrics;
use super::queue::QueueDefaults;
use super::served_version::VersionPlan;
use super::version_actor::{VersionActor, VersionArguments, VersionMessage};
use super::{InferError, OnnxRuntime};

/// All loaded versions, replaced as a whole.
pub(crate) type VersionTable = ArcSwap<HashMap<VersionKey, Arc<LoadedVersion>>>;

type LoadReply = RpcReplyPort<Result<Arc<LoadedVersion>, InferError>>;

pub(crate) struct InferenceSupervisor;

pub(crate) struct SupervisorArguments {
    pub runtime: OnnxRuntime,
    pub metrics: InferenceMetrics,
    pub queue_defaults: QueueDefaults,
    pub table: Arc<VersionTable>,
    /// Of the data plane.
    pub cores: usize,
}

pub(crate) enum SupervisorMessage {
    /// Answers once the version answers.
    Load { request: LoadRequest, reply: LoadReply },
    /// From a version's actor. One that cannot load dies of the reason instead.
    Loaded { key: VersionKey, loaded: Arc<LoadedVersion> },
    /// Answers once everything that the version accepted is answered.
    Unload { key: VersionKey, reply: RpcReplyPort<()> },
}

pub(crate) struct LoadRequest {
    pub key: VersionKey,
    pub file: PathBuf,
    pub signature: Arc<Signature>,
    pub settings: VersionSettings,
}

pub(crate) struct SupervisorState {
    runtime: OnnxRuntime,
    metrics: InferenceMetrics,
    queue_defaults: QueueDefaults,
    table: Arc<VersionTable>,
    cores: usize,
    versions: HashMap<ActorId, (VersionKey, ActorRef<VersionMessage>)>,
    /// Everyone who waits for a load.
    loading: HashMap<VersionKey, (ActorId, Vec<LoadReply>)>,
}

impl Actor for InferenceSupervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let SupervisorArguments { runtime, metrics, queue_defaults, table, cores } = arguments;
        let (versions, loading) = (HashMap::new(), HashMap::new());
        Ok(SupervisorState { runtime, metrics, queue_defaults, table, cores, versions, loading })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Load { request, reply } => state.load(&myself, request, reply).await,
            SupervisorMessage::Loaded { key, loaded } => state.load_ended(key, &Ok(loaded)),
            SupervisorMessage::Unload { key, reply } => state.unload(&key, reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(actor, _, reason) => {
                state.version_ended(actor.get_id(), &reason.unwrap_or_default());
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                state.version_ended(actor.get_id(), &error.to_string());
            }
            _ => {}
        }
        Ok(())
    }
}

impl SupervisorState {
    async fn load(&mut self, myself: &ActorRef<SupervisorMessage>, request: LoadRequest, reply: LoadReply) {
        let table = self.table.load();
        if let Some(loaded) = table.get(&request.key).filter(|loaded| loaded.failure().is_none()) {
            let _ = reply.send(Ok(Arc::clone(loaded)));
            return;
        }
        drop(table);
        if let Some((_, waiting)) = self.loading.get_mut(&request.key) {
            waiting.push(reply);
            return;
        }
        // What has failed makes room for the new attempt.
        self.take_out(&request.key, None);
        let LoadRequest { key, file, signature, settings } = request;
        let plan = VersionPlan {
            key: key.clone(),
            runtime: self.runtime.clone(),
            file,
            signature,
            settings,
            queue_defaults: self.queue_defaults,
            cores: self.cores,
        };
        let arguments = VersionArguments { plan, metrics: self.metrics.clone(), supervisor: myself.clone() };
        match Actor::spawn_linked(None, VersionActor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.loading.insert(key.clone(), (actor.get_id(), vec![reply]));
                self.versions.insert(actor.get_id(), (key, actor));
            }
            Err(error) => {
                let _ =
                    reply.send(Err(InferError::Internal(format!("a version's actor cannot start: {error}"))));
            }
        }
    }

    fn load_ended(&mut self, key: VersionKey, result: &Result<Arc<LoadedVersion>, InferError>) {
        let Some((_, replies)) = self.loading.remove(&key) else { return };
        if let Ok(loaded) = result {
            let mut table = HashMap::clone(&self.table.load());
            table.insert(key, Arc::clone(loaded));
            self.table.store(Arc::new(table));
        }
        for reply in replies {
            let _ = reply.send(result.clone());
        }
    }

    fn unload(&mut self, key: &VersionKey, reply: RpcReplyPort<()>) {
        if let Some((actor_id, waiting)) = self.loading.remove(key) {
            for waiting in waiting {
                let _ = waiting.send(Err(InferError::Unavailable(format!(
                    "version {} of model '{}' was unloaded while it was loaded",
                    key.ordinal, key.model
                ))));
            }
            if let Some((_, actor)) = self.versions.get(&actor_id) {
                let _ = actor.cast(VersionMessage::Drain(Some(reply)));
            }
            return;
        }
        self.take_out(key, Some(reply));
    }

    /// New requests no longer find it; its actor drains it and ends.
    fn take_out(&mut self, key: &VersionKey, reply: Option<RpcReplyPort<()>>) {
        let mut table = HashMap::clone(&self.table.load());
        let Some(loaded) = table.remove(key) else {
            if let Some(reply) = reply {
                let _ = reply.send(());
            }
            return;
        };
        self.table.store(Arc::new(table));
        let _ = loaded.actor().cast(VersionMessage::Drain(reply));
    }

    /// If nobody asked for the end, those who use the version must not find it.
    fn version_ended(&mut self, actor_id: ActorId, reason: &str) {
        let Some((key, _)) = self.versions.remove(&actor_id) else { return };
        if self.loading.get(&key).is_some_and(|(loading, _)| *loading == actor_id) {
            let text = format!("version {} of model '{}' cannot be loaded: {reason}", key.ordinal, key.model);
            self.load_ended(key.clone(), &Err(InferError::Internal(text)));
        }
        let table = self.table.load_full();
        if let Some(loaded) = table.get(&key).filter(|loaded| loaded.actor().get_id() == actor_id) {
            tracing::error!(model = %key.model, version = %key.ordinal, reason, "the actor of a version died");
            loaded.fail("its supervisor died");
            let mut table = HashMap::clone(&table);
            table.remove(&key);
            self.table.store(Arc::new(table));
        }
        if !self.versions.values().any(|(other, _)| *other == key) {
            self.metrics.forget_version(&key);
        }
    }
}
