//! What clients ask about models rather than of them: signatures, configuration,
//! counts, states.

use std::sync::Arc;

use starling_proto::inference::{
    ModelConfigResponse, ModelMetadataResponse, ModelStatistics, ModelStatisticsResponse,
    RepositoryIndexResponse,
};
use starling_raft::state::{NodeId, Ordinal, Phase};

use super::InferError;
use super::model_config::{config, index_entry, metadata, statistics_of_none};
use super::router::{find_model, find_version};
use super::routing_table::{RoutedModel, RoutedVersion, RoutingTable};
use super::run_statistics::Failures;
use super::serve::Inference;

impl Inference {
    /// True if this node can answer for the model (and version: label or
    /// ordinal; empty: what the route names).
    pub fn model_ready(&self, model: &str, version: &str) -> Result<bool, InferError> {
        let view = self.core.board.view();
        let table = self.core.routing.table();
        let model = find_model(&table, model)?;
        if !version.is_empty() {
            let version = find_version(model, version)?;
            return Ok(version.version.phase == Phase::Ready && !view.holders(version.id).is_empty());
        }
        let all_held = model.versions_in_route().all(|version| !view.holders(version.id).is_empty());
        Ok(model.route.is_some() && all_held)
    }

    /// How many decisions this node has made since its start.
    pub fn decisions_made(&self) -> u64 {
        self.core.decisions.given()
    }

    /// The signature, in the protocol's words.
    pub fn model_metadata(&self, model: &str, version: &str) -> Result<ModelMetadataResponse, InferError> {
        let table = self.core.routing.table();
        let (model, version) = described(&table, model, version)?;
        Ok(metadata(model, version))
    }

    /// The signature, in Triton's words.
    pub fn model_config(&self, model: &str, version: &str) -> Result<ModelConfigResponse, InferError> {
        let table = self.core.routing.table();
        let (model, version) = described(&table, model, version)?;
        let instances_here = self.core.local.get(version.id).map(|loaded| loaded.instances());
        let config = config(model, version, &self.core.board.view(), instances_here);
        Ok(ModelConfigResponse { config: Some(config) })
    }

    /// Cumulative counts of one model or, if empty, of all that are loaded
    /// here, requests that peers sent here included. A version that is not
    /// loaded here has counted nothing.
    pub fn model_statistics(
        &self,
        model: &str,
        version: &str,
    ) -> Result<ModelStatisticsResponse, InferError> {
        let core = &*self.core;
        let table = core.routing.table();
        let of = |version: &Arc<RoutedVersion>| match core.local.get(version.id) {
            Some(loaded) => loaded.statistics(),
            None => statistics_of_none(version),
        };
        let is_loaded = |version: &&Arc<RoutedVersion>| core.local.get(version.id).is_some();
        let model_stats = if model.is_empty() {
            let models = table.models_by_name();
            models.iter().flat_map(|model| model.versions().filter(is_loaded).map(of)).collect()
        } else if version.is_empty() {
            find_model(&table, model)?.versions().filter(is_loaded).map(of).collect()
        } else {
            vec![of(find_version(find_model(&table, model)?, version)?)]
        };
        Ok(ModelStatisticsResponse { model_stats })
    }

    /// What the versions that are loaded here have counted, in order of name.
    pub fn loaded_counts(&self) -> Vec<(ModelStatistics, Failures)> {
        let table = self.core.routing.table();
        let models = table.models_by_name();
        let loaded = models.iter().flat_map(|model| model.versions());
        let loaded = loaded.filter_map(|version| self.core.local.get(version.id));
        loaded.map(|version| (version.statistics(), version.failures())).collect()
    }

    /// Every version, and its state as this node sees it.
    pub fn repository_index(&self, ready_only: bool) -> RepositoryIndexResponse {
        let view = self.core.board.view();
        let table = self.core.routing.table();
        let models = table.models_by_name();
        let entries = models
            .iter()
            .flat_map(|model| model.versions().map(|version| index_entry(model, version, &view)))
            .filter(|entry| !ready_only || entry.state == "READY");
        RepositoryIndexResponse { models: entries.collect() }
    }

    /// Nodes known to have a version loaded and warm.
    pub fn loaded_on(&self, model: &str, ordinal: u64) -> Vec<NodeId> {
        let table = self.core.routing.table();
        let Some(version) = table.model(model).and_then(|model| model.version(Ordinal::new(ordinal))) else {
            return Vec::new();
        };
        self.core.board.view().holders(version.id).iter().map(|holder| holder.node_id).collect()
    }
}

fn described<'a>(
    table: &'a RoutingTable,
    model: &str,
    version: &str,
) -> Result<(&'a Arc<RoutedModel>, &'a Arc<RoutedVersion>), InferError> {
    let model = find_model(table, model)?;
    if !version.is_empty() {
        return Ok((model, find_version(model, version)?));
    }
    let name = &model.model.name;
    let none = || InferError::Unavailable(format!("model '{name}' has no versions; push one"));
    Ok((model, model.representative().ok_or_else(none)?))
}
