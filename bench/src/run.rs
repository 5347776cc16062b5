//! The whole comparison: starts the contestants, lets them take turns, prints
//! medians and ratios.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::load::LoadReport;
use super::raw::RawReport;

const CLIENT_COUNTS: [usize; 2] = [1, 16];
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const MODEL: &str = "tiny";

/// What to compare, and how long.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The starling binary, built for release
    #[arg(long)]
    starling: PathBuf,
    /// The tiny model: FP32 [-1, columns] to FP32 [-1, 8]
    #[arg(long)]
    model: PathBuf,
    /// The name of its input
    #[arg(long, default_value = "x")]
    input: String,
    /// Its columns
    #[arg(long, default_value_t = 64)]
    columns: usize,
    /// Rounds; the contestants alternate within each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds per contestant, client count and round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Where to write all figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Cell {
    contestant: &'static str,
    clients: usize,
    rounds: Vec<LoadReport>,
}

#[derive(Debug, Serialize)]
struct Figures {
    raw_runs_per_second: Vec<f64>,
    cells: Vec<Cell>,
}

/// Killed when it goes out of scope.
struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs everything and prints the table.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let echo = start_echo()?;
    let starling = start_starling(args, folder.path())?;
    let contestants = [("echo", &echo), ("starling", &starling)];
    let mut figures = Figures { raw_runs_per_second: Vec::new(), cells: Vec::new() };
    for clients in CLIENT_COUNTS {
        for (contestant, _) in contestants {
            figures.cells.push(Cell { contestant, clients, rounds: Vec::new() });
        }
    }
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        figures.raw_runs_per_second.push(measure_raw(args)?.runs_per_second);
        for clients in CLIENT_COUNTS {
            for (contestant, server) in contestants {
                let report = measure_load(args, &server.address, clients)?;
                let of_this = |cell: &&mut Cell| cell.contestant == contestant && cell.clients == clients;
                if let Some(cell) = figures.cells.iter_mut().find(of_this) {
                    cell.rounds.push(report);
                }
            }
        }
    }
    print_table(&figures);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

fn start_echo() -> anyhow::Result<Server> {
    let mut process = Command::new(std::env::current_exe()?).arg("echo").stdout(Stdio::piped()).spawn()?;
    let stdout = process.stdout.take().context("the echo server has no stdout")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address)?;
    Ok(Server { process, address: address.trim().to_owned() })
}

/// One node, the model pushed and ready.
fn start_starling(args: &RunArgs, folder: &Path) -> anyhow::Result<Server> {
    let ready_file = folder.join("ready.json");
    let log = std::fs::File::create(folder.join("starling.log"))?;
    let process = Command::new(&args.starling)
        .arg("serve")
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--ready-file")
        .arg(&ready_file)
        .args(["--rest-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--peer-port", "0"])
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {}", args.starling.display()))?;
    let mut server = Server { process, address: String::new() };
    let deadline = Instant::now() + READY_TIMEOUT;
    while server.address.is_empty() {
        let ready: Option<serde_json::Value> =
            std::fs::read(&ready_file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(ready) = ready.filter(|ready| ready["ready"] == true) {
            server.address =
                ready["grpc"].as_str().context("the ready file names no gRPC address")?.to_owned();
        }
        if Instant::now() > deadline {
            bail!("starling was not ready within {READY_TIMEOUT:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let command_line = |arguments: &[&str]| -> anyhow::Result<String> {
        let output =
            Command::new(&args.starling).args(["--server", &server.address]).args(arguments).output()?;
        if !output.status.success() {
            bail!("starling {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let model = args.model.to_str().context("the model's path is not UTF-8")?;
    command_line(&["model", "push", MODEL, model])?;
    while !command_line(&["get", "versions", MODEL, "-o", "json"])?.contains("\"ready\"") {
        if Instant::now() > deadline {
            bail!("the model was not ready within {READY_TIMEOUT:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(server)
}

fn measure_raw(args: &RunArgs) -> anyhow::Result<RawReport> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("raw").arg("--model").arg(&args.model).args(["--seconds", &args.seconds.to_string()]);
    report_of(command)
}

fn measure_load(args: &RunArgs, server: &str, clients: usize) -> anyhow::Result<LoadReport> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["load", "--server", server, "--model", MODEL, "--input", &args.input]);
    command.args(["--columns", &args.columns.to_string(), "--clients", &clients.to_string()]);
    command.args(["--warm-up-seconds", "0.5", "--seconds", &args.seconds.to_string()]);
    report_of(command)
}

fn report_of<T: DeserializeOwned>(mut command: Command) -> anyhow::Result<T> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print_table(figures: &Figures) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["clients", "contestant", "requests/s", "of echo", "p50 µs", "p99 µs"]);
    for clients in CLIENT_COUNTS {
        let cells: Vec<&Cell> = figures.cells.iter().filter(|cell| cell.clients == clients).collect();
        let echo = cells.iter().find(|cell| cell.contestant == "echo");
        let echo_rate = echo.map_or(f64::NAN, |cell| median(cell, |report| report.requests_per_second));
        for cell in cells {
            let rate = median(cell, |report| report.requests_per_second);
            table.add_row([
                clients.to_string(),
                cell.contestant.to_owned(),
                format!("{rate:.0}"),
                format!("{:.2}", rate / echo_rate),
                format!("{:.0}", median(cell, |report| report.p50_us)),
                format!("{:.0}", median(cell, |report| report.p99_us)),
            ]);
        }
    }
    let raw = median_of(figures.raw_runs_per_second.clone());
    let rounds = figures.raw_runs_per_second.len();
    println!(
        "{table}\n\nraw session, one thread, one row: {raw:.0} runs/s\nmedians of {rounds} alternating rounds"
    );
}

fn median(cell: &Cell, figure: impl Fn(&LoadReport) -> f64) -> f64 {
    median_of(cell.rounds.iter().map(figure).collect())
}

fn median_of(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => (figures[count / 2 - 1] + figures[count / 2]) / 2.0,
    }
}
