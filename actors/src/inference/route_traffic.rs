//! The weights of routes, with what the whole cluster served by them.

use std::collections::BTreeMap;

use starling_proto::admin::{Route, ShadowTraffic, VersionTraffic, WeightedVersion, shadow_traffic};
use starling_proto::peer::TrafficReport;

use super::cluster_traffic::{merged, shadow_cells};
use super::routing_table::{RoutedModel, RoutingTable};
use super::shadowing::cells::{OutputCount, ShadowCell};
use super::traffic::{Cell, CellKey};

/// In order of model name; `model` empty: all that have a route. Traffic is in
/// order of epoch, then version; epoch 0 stands for all older ones.
pub fn routes_with_traffic(table: &RoutingTable, model: &str, reports: &[TrafficReport]) -> Vec<Route> {
    let cells = merged(reports);
    let copies = shadow_cells(reports);
    let mut reported_by: Vec<u64> = reports.iter().map(|report| report.node_id).collect();
    reported_by.sort_unstable();
    let wanted =
        |routed: &&&std::sync::Arc<RoutedModel>| model.is_empty() || routed.model.name.as_str() == model;
    let models = table.models_by_name();
    models
        .iter()
        .filter(wanted)
        .filter_map(|routed| route_of(routed, &cells, &copies, &reported_by))
        .collect()
}

fn route_of(
    model: &RoutedModel,
    cells: &BTreeMap<CellKey, Cell>,
    copies: &BTreeMap<CellKey, ShadowCell>,
    reported_by: &[u64],
) -> Option<Route> {
    let route = model.route.as_ref()?;
    let label = |ordinal| match model.version(ordinal) {
        Some(version) => version.version.label.to_string(),
        None => ordinal.to_string(),
    };
    let weights = route
        .weights
        .iter()
        .map(|(ordinal, weight)| WeightedVersion { version: label(*ordinal), weight_ppm: weight.get() });
    let mut of_model: Vec<(&CellKey, &Cell)> =
        cells.iter().filter(|(key, _)| key.version.model_id == model.model.id).collect();
    of_model.sort_by_key(|(key, _)| (key.epoch, key.version.ordinal));
    let traffic = of_model.into_iter().map(|(key, cell)| VersionTraffic {
        version: label(key.version.ordinal),
        epoch: key.epoch,
        requests: cell.requests,
        errors: cell.errors,
        latency_p50_us: cell.latency.quantile_micros(0.5).unwrap_or(0.0),
        latency_p99_us: cell.latency.quantile_micros(0.99).unwrap_or(0.0),
    });
    let mut copies: Vec<(&CellKey, &ShadowCell)> =
        copies.iter().filter(|(key, _)| key.version.model_id == model.model.id).collect();
    copies.sort_by_key(|(key, _)| (key.epoch, key.version.ordinal));
    let of_shadow =
        |(key, cell): (&CellKey, &ShadowCell)| shadow_traffic_of(label(key.version.ordinal), key.epoch, cell);
    Some(Route {
        model: model.model.name.to_string(),
        epoch: route.epoch.get(),
        weights: weights.collect(),
        traffic: traffic.collect(),
        shadow_traffic: copies.into_iter().map(of_shadow).collect(),
        reported_by: reported_by.to_vec(),
        ..Route::default()
    })
}

fn shadow_traffic_of(version: String, epoch: u64, cell: &ShadowCell) -> ShadowTraffic {
    let output = |(output, count): (&String, &OutputCount)| shadow_traffic::Output {
        output: output.clone(),
        compared: count.compared,
        agreed: count.agreed,
    };
    let dropped = cell.dropped.iter().map(|(reason, copies)| (reason.as_str().to_owned(), *copies));
    ShadowTraffic {
        version,
        epoch,
        copies: cell.copies,
        compared: cell.compared,
        agreed: cell.agreed,
        errors: cell.errors,
        dropped: dropped.collect(),
        outputs: cell.outputs.iter().map(output).collect(),
        latency_p50_us: cell.latency.quantile_micros(0.5).unwrap_or(0.0),
        latency_p99_us: cell.latency.quantile_micros(0.99).unwrap_or(0.0),
        live_latency_p50_us: cell.live_latency.quantile_micros(0.5).unwrap_or(0.0),
        live_latency_p99_us: cell.live_latency.quantile_micros(0.99).unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::Duration;

    use super::*;
    use crate::inference::test_states::TestState;
    use crate::inference::traffic::{Ending, TrafficRecorder};

    #[test]
    fn a_route_shows_its_weights_and_the_traffic_of_all_nodes() {
        let mut cluster = TestState::default();
        let first = cluster.register("digits");
        cluster.ready("digits", first);
        let other = cluster.register("other");
        cluster.ready("other", other);
        let table = RoutingTable::default().updated(&cluster.state).unwrap();
        let model = table.model("digits").unwrap();
        let key = CellKey { version: model.representative().unwrap().id, epoch: model.epoch() };
        let reports: Vec<TrafficReport> = [7, 3]
            .into_iter()
            .map(|node_id| {
                let recorder = TrafficRecorder::default();
                recorder.record(key, Ending::Answered(Duration::from_micros(200)));
                recorder.record(key, Ending::Failed);
                let cells = recorder.read(|_| true).to_wire();
                TrafficReport { node_id, boot: 1, sequence: 1, cells, ..TrafficReport::default() }
            })
            .collect();
        let routes = routes_with_traffic(&table, "digits", &reports);
        assert_eq!(routes.len(), 1);
        let route = &routes[0];
        assert_eq!((route.model.as_str(), route.epoch), ("digits", 3));
        assert_eq!(route.weights, [WeightedVersion { version: "v1".into(), weight_ppm: 1_000_000 }]);
        assert_eq!(route.reported_by, [3, 7]);
        let traffic = &route.traffic[0];
        assert_eq!((traffic.version.as_str(), traffic.epoch), ("v1", 3));
        assert_eq!((traffic.requests, traffic.errors), (4, 2));
        assert!((198.0..=202.0).contains(&traffic.latency_p99_us), "{}", traffic.latency_p99_us);
        assert_eq!(routes_with_traffic(&table, "", &reports).len(), 2);
    }
}
