//! `starling bench`: load on any server of the Open Inference Protocol.

mod live;
mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use starling_bench::BenchError;
use starling_bench::generator::{self, Running};
use starling_bench::load::{Arrivals, Ending, IN_FLIGHT_DEFAULT, LoadSpec, Protocol, Spacing};
use starling_bench::outcome::Outcome;
use starling_bench::payload::{Inputs, Payload, random_request};
use starling_bench::plot::{self, Labelled};
use starling_bench::server::{ServedModel, ServerTimes, Signature};
use starling_proto::inference::model_metadata_response::TensorMetadata;
use starling_proto::inference::{ModelInferRequest, ModelMetadataResponse};

use super::CliError;
use super::output::OutputFormat;
use super::predict::{build_request, read_json};
use crate::config;

use live::LiveView;
use report::{Measured, Report};

/// Random requests that differ, so that no cache of one input makes things look better.
const RANDOM_REQUESTS: u64 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What load, on what, for how long.
#[derive(Debug, Args)]
// `--version` names the model's version here.
#[command(
    disable_version_flag = true,
    after_help = "\
Examples:
  starling bench digits                                 one client, then 4, 16 and 64
  starling bench digits --clients 32 --duration 1min    a closed loop
  starling bench digits --rate 500,1000,2000 --plot digits.svg
  starling bench digits --server localhost:8000 --protocol rest-binary

With --clients each client sends when its last request is answered. With --rate
requests are sent at that rate whatever the server does, and latency counts from
when a request was meant to be sent: that is what users feel when a server falls
behind. Any server of the protocol will do: Triton, KServe, Seldon, Starling; for
REST name its REST port. Ctrl-C ends a run early and shows what was measured."
)]
pub struct BenchArgs {
    /// The model
    model: String,
    /// This version instead of what the server chooses
    #[arg(long, default_value = "", hide_default_value = true)]
    version: String,
    /// How to talk to the server
    #[arg(long, value_enum, default_value_t = ProtocolArg::Grpc)]
    protocol: ProtocolArg,
    /// Clients at once; several counts are measured one after the other [default: 1,4,16,64]
    #[arg(long, value_name = "COUNT", value_delimiter = ',', conflicts_with = "rate")]
    clients: Vec<usize>,
    /// Requests per second; several rates are measured one after the other
    #[arg(long, value_name = "RATE", value_delimiter = ',', allow_negative_numbers = true)]
    rate: Vec<f64>,
    /// How requests of a rate are spread
    #[arg(long, value_enum, default_value_t = SpacingArg::Poisson, requires = "rate")]
    spacing: SpacingArg,
    /// How long each measurement takes
    #[arg(long, value_parser = duration, default_value = "10s")]
    duration: Duration,
    /// End each measurement after so many answers instead
    #[arg(long, value_name = "COUNT", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Sent before each measurement and not counted
    #[arg(long, value_parser = duration, default_value = "1s")]
    warm_up: Duration,
    /// A request that takes longer has failed
    #[arg(long, value_parser = duration, default_value = "10s")]
    timeout: Duration,
    /// Tell the server the timeout as well, as grpc-timeout
    #[arg(long)]
    deadline: bool,
    /// Rows per request
    #[arg(long, value_name = "ROWS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// The whole shape of an input with further free axes, such as ids=1,128
    #[arg(long, value_name = "INPUT=AXES", value_parser = shape, conflicts_with = "input")]
    shape: Vec<(String, Vec<i64>)>,
    /// Send this instead of random values: a JSON file as for `predict`
    #[arg(short, long, value_name = "FILE", conflicts_with = "batch")]
    input: Option<PathBuf>,
    /// gRPC connections [default: one per client; 16 with --rate]
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    connections: usize,
    /// Requests in flight at most, with --rate; further ones are sent late
    #[arg(long, value_name = "COUNT", default_value_t = IN_FLIGHT_DEFAULT, requires = "rate")]
    in_flight: usize,
    /// Threads that make the load [default: one per core]
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Draw latency, throughput and time line into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How to show the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// gRPC, tensors as raw bytes
    Grpc,
    /// REST, tensors as JSON
    Rest,
    /// REST with the binary tensor extension
    RestBinary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SpacingArg {
    /// As independent users come
    Poisson,
    /// Equal gaps
    Constant,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .ok_or_else(|| "must be a number and a unit, such as 10s, 500ms or 2min".into())
}

fn shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let refused = || "must be INPUT=AXES, such as ids=1,128".to_owned();
    let (name, axes) = text.rsplit_once('=').ok_or_else(refused)?;
    let axes: Vec<i64> = axes
        .split(',')
        .map(|axis| axis.trim().parse().ok().filter(|axis| *axis >= 0))
        .collect::<Option<_>>()
        .ok_or_else(refused)?;
    Ok((name.to_owned(), axes))
}

/// Measures one load after the other and shows them together.
pub async fn run(server: &str, args: BenchArgs) -> Result<(), CliError> {
    let loads = loads(&args)?;
    let served = ServedModel {
        server: server.strip_prefix("http://").unwrap_or(server).to_owned(),
        protocol: args.protocol.into(),
        model: args.model.clone(),
        version: args.version.clone(),
    };
    let signature = served.signature().await?;
    let requests = requests(&args, &signature)?;
    let deadline = args.deadline.then_some(args.timeout);
    let payload = Arc::new(Payload::new(served.protocol, &served.server, &requests, deadline)?);
    let mut report = Report::new(&served, u64::from(args.batch), payload.body_bytes());
    for load in loads {
        let (outcome, interrupted) = measure(&served, &payload, &load).await?;
        report.measurements.push(Measured::new(&load, outcome));
        if interrupted {
            break;
        }
    }
    report::print(args.output, &report)?;
    if let Some(path) = &args.plot {
        draw(path, &report)?;
    }
    report.nothing_answered().map_or(Ok(()), |reason| Err(CliError::No(reason)))
}

fn loads(args: &BenchArgs) -> Result<Vec<LoadSpec>, CliError> {
    const DEFAULT_CLIENTS: &[usize] = &[1, 4, 16, 64];
    let arrivals: Vec<Arrivals> = if args.rate.is_empty() {
        let counts = if args.clients.is_empty() { DEFAULT_CLIENTS } else { &args.clients };
        counts.iter().map(|clients| Arrivals::Closed { clients: *clients }).collect()
    } else {
        let (spacing, in_flight_max) = (args.spacing.into(), args.in_flight);
        args.rate.iter().map(|rate| Arrivals::Open { rate: *rate, spacing, in_flight_max }).collect()
    };
    let of_arrivals = |arrivals| {
        let load = LoadSpec {
            arrivals,
            warm_up: args.warm_up,
            ending: args.requests.map_or(Ending::After(args.duration), Ending::Answers),
            timeout: args.timeout,
            connections: args.connections,
            threads: args.threads,
            slice: Duration::from_secs(1),
        };
        load.check().map(|()| load)
    };
    Ok(arrivals.into_iter().map(of_arrivals).collect::<Result<_, _>>()?)
}

fn requests(args: &BenchArgs, signature: &Signature) -> Result<Vec<ModelInferRequest>, CliError> {
    if let Some(path) = &args.input {
        let tensors = signature.inputs.iter().map(|input| TensorMetadata {
            name: input.name.clone(),
            datatype: input.datatype.clone(),
            shape: input.shape.clone(),
        });
        let metadata =
            ModelMetadataResponse { inputs: tensors.collect(), ..ModelMetadataResponse::default() };
        let request = build_request(&args.model, &args.version, read_json(path)?, &metadata)
            .map_err(|reason| CliError::Local(format!("{}: {reason}", path.display())))?;
        return Ok(vec![request]);
    }
    let shapes: BTreeMap<String, Vec<i64>> = args.shape.iter().cloned().collect();
    let inputs = Inputs { batch: i64::from(args.batch), shapes };
    let requests = (0..RANDOM_REQUESTS).map(|seed| random_request(signature, &inputs, seed));
    Ok(requests.collect::<Result<_, _>>()?)
}

/// One load; true if Ctrl-C ended it.
async fn measure(
    served: &ServedModel,
    payload: &Arc<Payload>,
    load: &LoadSpec,
) -> Result<(Outcome, bool), CliError> {
    let before = served.statistics().await;
    let running = generator::start(&served.server, payload, load)?;
    let interrupted = watch(&running, load).await?;
    if interrupted && !ended_after_stop(&running).await {
        running.abandon();
        return Err(CliError::TimedOut("stopped before the requests in flight were answered".to_owned()));
    }
    let mut outcome = running.finish()?;
    if let Some(before) = before
        && let Some(after) = served.statistics().await
    {
        outcome.server = ServerTimes::between(&before, &after);
    }
    Ok((outcome, interrupted))
}

async fn watch(running: &Running, load: &LoadSpec) -> Result<bool, CliError> {
    let mut view = LiveView::new(load);
    while !running.is_over() {
        view.show(&running.progress());
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            signal = tokio::signal::ctrl_c() => {
                signal.map_err(|error| CliError::Local(format!("cannot wait for Ctrl-C: {error}")))?;
                running.stop();
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Waits for what is in flight; a second Ctrl-C does not.
async fn ended_after_stop(running: &Running) -> bool {
    while !running.is_over() {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return false,
        }
    }
    true
}

fn draw(path: &Path, report: &Report) -> Result<(), CliError> {
    let labels: Vec<String> = report.measurements.iter().map(|measured| measured.load.to_string()).collect();
    let labelled: Vec<Labelled<'_>> = labels
        .iter()
        .zip(&report.measurements)
        .map(|(label, measured)| Labelled { label, outcome: &measured.outcome })
        .collect();
    let title = format!("{} over {} at {}", report.model, report.protocol, report.server);
    std::fs::write(path, plot::svg(&title, &labelled))
        .map_err(|error| CliError::Local(format!("{} cannot be written: {error}", path.display())))
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Grpc => Self::Grpc,
            ProtocolArg::Rest => Self::Rest,
            ProtocolArg::RestBinary => Self::RestBinary,
        }
    }
}

impl From<SpacingArg> for Spacing {
    fn from(spacing: SpacingArg) -> Self {
        match spacing {
            SpacingArg::Poisson => Self::Poisson,
            SpacingArg::Constant => Self::Constant,
        }
    }
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Unreachable { server, reason } => Self::Unreachable { server, reason },
            BenchError::Refused { code, message } => tonic::Status::new(code, message).into(),
            not_ready @ BenchError::NotReady { .. } => {
                tonic::Status::unavailable(not_ready.to_string()).into()
            }
            BenchError::Address(_)
            | BenchError::Asked(_)
            | BenchError::Protocol { .. }
            | BenchError::Local(_) => Self::Local(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn loads_of(line: &[&str]) -> Result<Vec<LoadSpec>, String> {
        let line =
            Line::try_parse_from([&["bench", "m"], line].concat()).map_err(|error| error.to_string())?;
        loads(&line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn without_words_four_client_counts_are_measured() {
        let clients: Vec<Arrivals> = loads_of(&[]).unwrap().into_iter().map(|load| load.arrivals).collect();
        assert_eq!(clients, [1, 4, 16, 64].map(|clients| Arrivals::Closed { clients }));
    }

    #[test]
    fn rates_make_open_loops() {
        let loads = loads_of(&["--rate", "100,2.5", "--spacing", "constant", "--duration", "2s"]).unwrap();
        let open = |rate| Arrivals::Open { rate, spacing: Spacing::Constant, in_flight_max: 2_048 };
        assert_eq!(loads.iter().map(|load| load.arrivals).collect::<Vec<_>>(), [open(100.0), open(2.5)]);
        assert_eq!(loads[0].ending, Ending::After(Duration::from_secs(2)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (line, reason) in [
            (&["--rate", "5", "--clients", "2"][..], "cannot be used with"),
            (&["--clients", "0"], "clients must be from 1"),
            (&["--rate", "-1"], "above 0"),
            (&["--duration", "10"], "such as 10s"),
            (&["--requests", "5", "--duration", "1s"], "cannot be used with"),
            (&["--spacing", "constant"], "--rate"),
            (&["--shape", "ids"], "INPUT=AXES"),
        ] {
            let refused = loads_of(line).unwrap_err();
            assert!(refused.contains(reason), "{line:?}: {refused}");
        }
    }

    #[test]
    fn a_shape_names_an_input_and_its_axes() {
        assert_eq!(shape("a=b=1, 128"), Ok(("a=b".to_owned(), vec![1, 128])));
        assert!(shape("ids=1,-1").is_err());
    }

    #[test]
    fn errors_have_the_exit_codes_of_the_other_commands() {
        let code = |error: BenchError| format!("{:?}", CliError::from(error).exit_code());
        let exit = |code: u8| format!("{:?}", std::process::ExitCode::from(code));
        let refused = |code| BenchError::Refused { code, message: String::new() };
        assert_eq!(code(BenchError::Unreachable { server: "s".into(), reason: "r".into() }), exit(3));
        assert_eq!(code(BenchError::NotReady { model: "m".into(), server: "s".into() }), exit(3));
        assert_eq!(code(refused(tonic::Code::NotFound)), exit(4));
        assert_eq!(code(BenchError::Address("x".into())), exit(2));
    }
}
