//! `starling feedback import`: a file of feedback, one JSON object per line.
//! Parts are sent again until they are taken: a decision is rewarded once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, stdin};
use std::time::{Duration, Instant};

use clap::Args;
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use starling_proto::feedback::feedback_client::FeedbackClient;
use starling_proto::feedback::{FeedbackItem, FeedbackResult, RecordRequest};
use tonic::Code;
use tonic::transport::Channel;

use super::{CliError, in_words, is_fine, name};
use crate::cli::{connection, output};
use crate::feedback_json::item_of_text;

const ITEMS_PER_REQUEST: usize = 2_000;
const REQUESTS_AT_ONCE: usize = 4;
/// Lines with a problem that are shown; all are counted.
const PROBLEMS_SHOWN_MAX: usize = 20;
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 10;

fn duration(text: &str) -> Result<Duration, String> {
    crate::cli::duration::micros(text).map(Duration::from_micros)
}

/// Which file.
#[derive(Debug, Args)]
#[command(after_help = "\
A line: {\"decision\": \"AQEB…\", \"value\": 1.5}; or \"label\": \"cat\"; or \"flag\": true.
May also have \"unit\", \"retract\": true and \"observed_at\": \"2026-11-25T12:00:00Z\".
Exit codes: 0 all of it was taken; 1 some lines were not (each is told);
2 the file cannot be read; 3 no node took it within --timeout. Sending a
file again is harmless.")]
pub struct ImportArgs {
    /// The file; - reads stdin
    file: String,
    /// How long a part is sent again while nodes cannot take it
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Wait until each part is committed by a majority
    #[arg(long)]
    wait: bool,
}

/// Lines that go into one request.
struct Part {
    lines: Vec<u64>,
    items: Vec<FeedbackItem>,
}

/// What became of all lines.
#[derive(Default)]
struct Summary {
    by_verdict: BTreeMap<&'static str, u64>,
    problems: u64,
    problems_shown: usize,
}

/// Carries it out.
pub async fn run(server: &str, args: ImportArgs) -> Result<(), CliError> {
    let reader: Box<dyn BufRead> = match args.file.as_str() {
        "-" => Box::new(BufReader::new(stdin())),
        file => {
            let open = File::open(file)
                .map_err(|error| CliError::Local(format!("{file} cannot be read: {error}")))?;
            Box::new(BufReader::new(open))
        }
    };
    let client = connection::feedback(server).await?;
    let progress = progress();
    let mut summary = Summary::default();
    let mut failure = None;
    let mut lines = Lines { reader, file: args.file.clone(), number: 0, is_over: false };
    let parts = std::iter::from_fn(|| match lines.part(&mut summary) {
        Ok(part) => part,
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    // Parts are read as they are sent: a file may be larger than memory.
    let sending = futures::stream::iter(parts).map(|part| send(client.clone(), part, &args));
    let mut answers = sending.buffered(REQUESTS_AT_ONCE);
    let mut outcomes = Vec::new();
    while let Some(answer) = answers.next().await {
        let answered = answer?;
        progress.inc(answered.len() as u64);
        outcomes.push(tally(answered));
    }
    drop(answers);
    progress.finish_and_clear();
    outcomes.into_iter().for_each(|outcome| summary.add(outcome));
    if let Some(failure) = failure {
        return Err(failure);
    }
    let shown: Vec<String> =
        summary.by_verdict.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let shown = if shown.is_empty() { "there was nothing in it".to_owned() } else { shown.join(", ") };
    output::print_line(&shown)?;
    match summary.problems {
        0 => Ok(()),
        problems => Err(CliError::No(format!("not taken, or not credited any more: {problems} lines"))),
    }
}

type Answered = Vec<(u64, FeedbackResult)>;

/// Counts by verdict, and the first lines with a problem.
struct Tally {
    by_verdict: BTreeMap<&'static str, u64>,
    problems: Vec<(u64, String)>,
    problem_count: u64,
}

fn tally(answered: Answered) -> Tally {
    let mut tally = Tally { by_verdict: BTreeMap::new(), problems: Vec::new(), problem_count: 0 };
    for (line, result) in answered {
        *tally.by_verdict.entry(name(result.verdict())).or_default() += 1;
        if !is_fine(result.verdict()) {
            tally.problem_count += 1;
            if tally.problems.len() < PROBLEMS_SHOWN_MAX {
                tally.problems.push((line, in_words(&result)));
            }
        }
    }
    tally
}

impl Summary {
    fn add(&mut self, tally: Tally) {
        for (name, count) in tally.by_verdict {
            *self.by_verdict.entry(name).or_default() += count;
        }
        self.problems += tally.problem_count - tally.problems.len() as u64;
        for (line, problem) in tally.problems {
            self.problem(line, &problem);
        }
    }

    fn problem(&mut self, line: u64, problem: &str) {
        self.problems += 1;
        self.problems_shown += 1;
        match self.problems_shown {
            shown if shown <= PROBLEMS_SHOWN_MAX => eprintln!("line {line}: {problem}"),
            shown if shown == PROBLEMS_SHOWN_MAX + 1 => {
                eprintln!("further lines with problems are counted only")
            }
            _ => {}
        }
    }
}

/// Reads the file part by part.
struct Lines {
    reader: Box<dyn BufRead>,
    file: String,
    number: u64,
    is_over: bool,
}

impl Lines {
    /// `None`: there are no more. Lines that are no feedback are told here.
    fn part(&mut self, summary: &mut Summary) -> Result<Option<Part>, CliError> {
        let mut part = Part { lines: Vec::new(), items: Vec::new() };
        while !self.is_over && part.items.len() < ITEMS_PER_REQUEST {
            let Some(line) = self.line()? else {
                self.is_over = true;
                break;
            };
            if line.trim().is_empty() {
                continue;
            }
            match item_of_text(line.trim()) {
                Ok(item) => {
                    part.lines.push(self.number);
                    part.items.push(item);
                }
                Err(reason) => {
                    *summary.by_verdict.entry("invalid").or_default() += 1;
                    summary.problem(self.number, &format!("invalid: {reason}"));
                }
            }
        }
        Ok(Some(part).filter(|part| !part.items.is_empty()))
    }

    fn line(&mut self) -> Result<Option<String>, CliError> {
        let unreadable = |reason: String| CliError::Local(format!("{}: {reason}", self.file));
        self.number += 1;
        let mut line = String::new();
        let mut limited = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX as u64);
        let read = limited.read_line(&mut line);
        let number = self.number;
        match read.map_err(|error| unreadable(format!("line {number}: {error}")))? {
            0 => Ok(None),
            LINE_BYTES_MAX if !line.ends_with('\n') => {
                Err(unreadable(format!("line {number} is longer than {LINE_BYTES_MAX} bytes")))
            }
            _ => Ok(Some(line)),
        }
    }
}

/// Until it is taken, or time is over.
async fn send(
    mut client: FeedbackClient<Channel>,
    part: Part,
    args: &ImportArgs,
) -> Result<Answered, CliError> {
    let deadline = Instant::now() + args.timeout;
    loop {
        let request = RecordRequest { items: part.items.clone(), wait_counted: args.wait };
        let status = match client.record(request).await {
            Ok(answer) => {
                let results = answer.into_inner().results;
                return Ok(part.lines.into_iter().zip(results).collect());
            }
            Err(status) => status,
        };
        let may_pass = matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
        if !may_pass || Instant::now() + RETRY_DELAY >= deadline {
            return Err(status.into());
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{human_pos} lines, {per_sec}, {elapsed}");
    let bar = ProgressBar::new_spinner();
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
