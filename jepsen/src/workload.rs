//! Concurrent clients that read and write routes through whichever node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use starling_proto::admin::admin_client::AdminClient;
use starling_proto::admin::{ListRequest, Route, SetRouteRequest, WeightedVersion};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use super::history::{Answer, Call, Operation};

const WHOLE_PPM: u32 = 1_000_000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Keeps the history short enough to be searched.
const PAUSE_MAX: Duration = Duration::from_millis(60);

/// Against whom, how hard, how long.
pub struct Workload {
    /// HOST:GRPC_PORT of every node.
    pub servers: Vec<String>,
    /// Models with two ready versions.
    pub models: Vec<String>,
    /// Clients at once.
    pub clients: usize,
    /// How long they go on.
    pub duration: Duration,
    /// Draws the operations.
    pub seed: u64,
}

struct Shared {
    servers: Vec<String>,
    registers: Vec<Register>,
    began: Instant,
    end: Instant,
}

struct Register {
    model: String,
    versions: [String; 2],
}

/// Runs the clients to the end and returns what they saw, in order of call.
pub async fn run(workload: Workload) -> anyhow::Result<Vec<Operation>> {
    let began = Instant::now();
    let mut history = Vec::new();
    let mut registers = Vec::new();
    for model in &workload.models {
        let register =
            Register { model: model.clone(), versions: two_versions(&workload.servers, model).await? };
        let first = first_read(&workload.servers, &register, began).await?;
        history.push(first);
        registers.push(register);
    }
    let end = Instant::now() + workload.duration;
    let shared = Arc::new(Shared { servers: workload.servers, registers, began, end });
    let clients: Vec<_> = (0..workload.clients)
        .map(|number| tokio::spawn(client_loop(Arc::clone(&shared), number, workload.seed)))
        .collect();
    for client in clients {
        history.extend(client.await?);
    }
    history.sort_by_key(|operation| operation.called_ns);
    Ok(history)
}

/// Tells where the register starts. Any node may answer, after an election too.
async fn first_read(servers: &[String], register: &Register, began: Instant) -> anyhow::Result<Operation> {
    let give_up = Instant::now() + START_TIMEOUT;
    let mut reader = Client::new(0, servers, 0);
    while Instant::now() < give_up {
        let read = reader.carry_out(register, Call::Read, began, CALL_TIMEOUT).await;
        if matches!(read.answer, Answer::Value { .. }) {
            return Ok(read);
        }
        reader.go_to_next_server(servers);
        tokio::time::sleep(PAUSE_MAX).await;
    }
    bail!("the route of model '{}' cannot be read before the run", register.model)
}

async fn two_versions(servers: &[String], model: &str) -> anyhow::Result<[String; 2]> {
    let mut last_error = anyhow::anyhow!("no server was named");
    for server in servers {
        let asked = async {
            let mut client = AdminClient::new(connect(server).await?);
            let request = ListRequest { model: model.to_owned(), stale: false };
            anyhow::Ok(client.list_versions(with_timeout(request, START_TIMEOUT)).await?.into_inner())
        };
        match asked.await {
            Ok(answer) => {
                let ready: Vec<String> = answer
                    .versions
                    .into_iter()
                    .filter(|version| version.phase == "ready")
                    .map(|version| version.label)
                    .take(2)
                    .collect();
                return ready
                    .try_into()
                    .map_err(|_| anyhow::anyhow!("model '{model}' needs two ready versions"));
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error).with_context(|| format!("the versions of model '{model}' cannot be listed"))
}

async fn client_loop(shared: Arc<Shared>, number: usize, seed: u64) -> Vec<Operation> {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
    let mut client = Client::new(number, &shared.servers, number);
    let mut last_epoch = 0;
    let mut seen = Vec::new();
    while Instant::now() < shared.end {
        let register = &shared.registers[random.random_range(0..shared.registers.len())];
        let value = random.random_range(0..=WHOLE_PPM);
        let call = match random.random_range(0..10) {
            0..4 => Call::Read,
            4..7 => Call::Write { value },
            _ if last_epoch > 0 => Call::WriteAt { epoch: last_epoch, value },
            _ => Call::Read,
        };
        let operation = client.carry_out(register, call, shared.began, CALL_TIMEOUT).await;
        if let Answer::Value { epoch, .. } | Answer::Written { epoch } = operation.answer {
            last_epoch = epoch;
        }
        let trouble = matches!(operation.answer, Answer::Unknown | Answer::Refused);
        seen.push(operation);
        if trouble || random.random_range(0..8) == 0 {
            client.go_to_next_server(&shared.servers);
        }
        tokio::time::sleep(random.random_range(Duration::ZERO..PAUSE_MAX)).await;
    }
    seen
}

struct Client {
    number: usize,
    position: usize,
    server: String,
    channel: Option<Channel>,
}

impl Client {
    fn new(number: usize, servers: &[String], position: usize) -> Self {
        let position = position % servers.len();
        Self { number, position, server: servers[position].clone(), channel: None }
    }

    fn go_to_next_server(&mut self, servers: &[String]) {
        *self = Self::new(self.number, servers, self.position + 1);
    }

    async fn carry_out(
        &mut self,
        register: &Register,
        call: Call,
        began: Instant,
        timeout: Duration,
    ) -> Operation {
        let called_ns = nanos_since(began);
        let answer = self.ask(register, call, timeout).await;
        let returned_ns = (answer != Answer::Unknown).then(|| nanos_since(began));
        Operation { client: self.number, model: register.model.clone(), called_ns, returned_ns, call, answer }
    }

    async fn ask(&mut self, register: &Register, call: Call, timeout: Duration) -> Answer {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => match connect(&self.server).await {
                Ok(channel) => self.channel.insert(channel).clone(),
                // Nothing was sent.
                Err(_) => return Answer::Refused,
            },
        };
        let mut client = AdminClient::new(channel);
        let (value, expected_epoch) = match call {
            Call::Read => {
                let request = ListRequest { model: register.model.clone(), stale: false };
                let answer = client.list_routes(with_timeout(request, timeout)).await;
                let routes = answer.map(|answer| answer.into_inner().routes).unwrap_or_default();
                return routes
                    .first()
                    .map_or(Answer::Unknown, |route| value_of(route, &register.versions[0]));
            }
            Call::Write { value } => (value, 0),
            Call::WriteAt { epoch, value } => (value, epoch),
        };
        let weight = |version: &str, weight_ppm| WeightedVersion { version: version.to_owned(), weight_ppm };
        let request = SetRouteRequest {
            model: register.model.clone(),
            weights: vec![
                weight(&register.versions[0], value),
                weight(&register.versions[1], WHOLE_PPM - value),
            ],
            request_id: uuid::Uuid::now_v7().to_string(),
            expected_epoch,
        };
        match client.set_route(with_timeout(request, timeout)).await {
            Ok(answer) if answer.get_ref().changed => Answer::Written { epoch: answer.get_ref().log_index },
            Ok(_) => Answer::Unchanged,
            Err(status) if status.code() == Code::FailedPrecondition => Answer::OtherEpoch,
            // Whether it reached the log before the error is not known.
            Err(_) => Answer::Unknown,
        }
    }
}

fn value_of(route: &Route, version: &str) -> Answer {
    let weighted = route.weights.iter().find(|weighted| weighted.version == version);
    Answer::Value { epoch: route.epoch, value: weighted.map_or(0, |weighted| weighted.weight_ppm) }
}

async fn connect(server: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?.connect_timeout(CONNECT_TIMEOUT);
    Ok(endpoint.connect().await?)
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn nanos_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
