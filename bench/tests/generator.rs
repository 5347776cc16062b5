//! The generator against servers that stall, refuse, forget and hang up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod servers;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use servers::{Behaviour, Server, Step};
use starling_bench::BenchError;
use starling_bench::generator;
use starling_bench::load::{Arrivals, Ending, LoadSpec, Protocol, Spacing};
use starling_bench::outcome::Outcome;
use starling_bench::payload::{Inputs, Payload, random_request};
use starling_bench::server::{Signature, TensorSpec};

fn payload(protocol: Protocol, server: &str) -> Arc<Payload> {
    let input = TensorSpec { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, 4] };
    let signature = Signature { model: "m".into(), version: String::new(), inputs: vec![input] };
    let request = random_request(&signature, &Inputs::default(), 0).unwrap();
    Arc::new(Payload::new(protocol, server, &[request], None).unwrap())
}

fn measure(server: &Server, protocol: Protocol, load: &LoadSpec) -> Outcome {
    generator::measure(&server.address, &payload(protocol, &server.address), load).unwrap()
}

fn always(step: Step) -> Behaviour {
    Arc::new(move |_| step)
}

fn answers(clients: usize, count: u64) -> LoadSpec {
    let mut load = LoadSpec::closed(clients, Duration::ZERO, Duration::from_secs(1));
    load.ending = Ending::Answers(count);
    load
}

fn constant(rate: f64, seconds: u64, in_flight_max: usize) -> LoadSpec {
    let mut load = LoadSpec::open(rate, Duration::ZERO, Duration::from_secs(seconds));
    load.arrivals = Arrivals::Open { rate, spacing: Spacing::Constant, in_flight_max };
    load
}

#[test]
fn a_closed_loop_counts_every_answer_once() {
    for (server, protocol) in [
        (servers::grpc(always(Step::Answer)), Protocol::Grpc),
        (servers::rest(always(Step::Answer)), Protocol::Rest),
        (servers::rest(always(Step::Answer)), Protocol::RestBinary),
    ] {
        let outcome = measure(&server, protocol, &answers(4, 500));
        assert_eq!(outcome.failed, 0, "{protocol:?}: {:?}", outcome.errors);
        // The last answer ends the window; up to three more were under way.
        assert!((500..=503).contains(&outcome.answered), "{protocol:?}: {}", outcome.answered);
        let received = server.requests.load(Ordering::Relaxed);
        assert_eq!(outcome.answered_since_start, received, "{protocol:?}");
        let in_slices: u64 = outcome.timeline.iter().map(|slice| slice.answered).sum();
        assert_eq!(in_slices, outcome.answered);
        let latency = outcome.latency.unwrap();
        let ascending = [1.0, latency.min_us, latency.p50_us, latency.p90_us, latency.p99_us, latency.max_us];
        assert!(ascending.is_sorted(), "{latency:?}");
    }
}

#[test]
fn warm_up_is_sent_and_not_counted() {
    let server = servers::grpc(always(Step::Answer));
    let load = LoadSpec::closed(1, Duration::from_millis(300), Duration::from_millis(300));
    let outcome = measure(&server, Protocol::Grpc, &load);
    assert!(outcome.answered > 0);
    assert!(outcome.answered_since_start > outcome.answered);
    assert!((outcome.seconds - 0.3).abs() < 0.001);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = servers::grpc(always(Step::Answer));
    let outcome = measure(&server, Protocol::Grpc, &constant(500.0, 2, 256));
    // Intended at 0, 2, 4, … 1,998 ms: exactly a thousand.
    assert_eq!(outcome.answered + outcome.failed + outcome.not_sent, 1_000, "{:?}", outcome.errors);
    assert_eq!(outcome.failed, 0);
}

#[test]
fn a_server_that_stalls_cannot_hide_it() {
    // 200 requests, one each 5 ms, one at a time. The server stops for 400 ms after
    // 300 ms: 80 requests are meant to be sent meanwhile. A generator that counted
    // from when it could send would see one slow request in 121.
    let pause = Duration::from_millis(400);
    let stalls: Behaviour =
        Arc::new(move |request| if request == 60 { Step::StallAll(pause) } else { Step::Answer });
    let server = servers::grpc(stalls);
    let mut load = constant(200.0, 1, 1);
    load.connections = 1;
    let outcome = measure(&server, Protocol::Grpc, &load);
    assert_eq!(outcome.answered + outcome.not_sent, 200, "{:?}", outcome.errors);
    let latency = outcome.latency.unwrap();
    // A tenth of all, 20 requests, were meant for the first 100 ms of the stall and
    // waited for at least 300 ms of it.
    assert!(latency.p90_us >= 290_000.0, "p90 {} µs", latency.p90_us);
    assert!(latency.max_us >= 395_000.0, "max {} µs", latency.max_us);
    // All of the stall but its first request.
    assert!(outcome.sent_late >= 78, "{} sent late", outcome.sent_late);
    assert!(outcome.lag_max_us >= 390_000.0, "lag {} µs", outcome.lag_max_us);
}

#[test]
fn what_had_no_place_until_the_end_is_counted() {
    let server = servers::grpc(always(Step::Forget));
    let mut load = constant(100.0, 1, 2);
    load.timeout = Duration::from_millis(1_500);
    let outcome = measure(&server, Protocol::Grpc, &load);
    assert_eq!((outcome.answered, outcome.failed, outcome.not_sent), (0, 2, 98));
    assert_eq!(outcome.errors["timeout"].count, 2);
}

#[test]
fn refusals_are_counted_by_code_with_the_words_of_the_first() {
    let every_third = |code| -> Behaviour {
        Arc::new(move |request| if request % 3 == 2 { Step::Refuse(code) } else { Step::Answer })
    };
    for (server, protocol, code, words) in [
        (servers::grpc(every_third(8)), Protocol::Grpc, "RESOURCE_EXHAUSTED", "the queue is full"),
        (servers::rest(every_third(429)), Protocol::Rest, "429", "{\"error\":\"the queue is full\"}"),
    ] {
        let outcome = measure(&server, protocol, &answers(1, 20));
        assert_eq!((outcome.answered, outcome.failed), (20, 9), "{protocol:?}");
        assert_eq!(outcome.errors.len(), 1, "{protocol:?}");
        assert_eq!((outcome.errors[code].count, &outcome.errors[code].example[..]), (9, words));
    }
}

#[test]
fn a_broken_connection_is_dialled_again() {
    let hangs_up_once: Behaviour = Arc::new(|request| if request == 5 { Step::HangUp } else { Step::Answer });
    for (server, protocol) in [
        (servers::grpc(hangs_up_once.clone()), Protocol::Grpc),
        (servers::rest(hangs_up_once.clone()), Protocol::Rest),
    ] {
        let outcome = measure(&server, protocol, &answers(1, 20));
        assert_eq!((outcome.answered, outcome.failed), (20, 1), "{protocol:?}");
        assert_eq!(outcome.errors["connection"].count, 1, "{protocol:?}");
    }
}

#[test]
fn a_request_that_is_not_answered_in_time_fails_and_the_next_one_is_sent() {
    let forgets_once: Behaviour = Arc::new(|request| if request == 1 { Step::Forget } else { Step::Answer });
    for (server, protocol) in [
        (servers::grpc(forgets_once.clone()), Protocol::Grpc),
        (servers::rest(forgets_once.clone()), Protocol::Rest),
    ] {
        let mut load = answers(1, 5);
        load.timeout = Duration::from_millis(300);
        let outcome = measure(&server, protocol, &load);
        assert_eq!((outcome.answered, outcome.failed), (5, 1), "{protocol:?}");
        assert_eq!(outcome.errors["timeout"].count, 1, "{protocol:?}");
    }
}

#[test]
fn stopping_ends_an_endless_load_and_keeps_what_was_measured() {
    let server = servers::grpc(always(Step::Answer));
    let load = LoadSpec::closed(2, Duration::ZERO, Duration::from_secs(3_600));
    let running =
        generator::start(&server.address, &payload(Protocol::Grpc, &server.address), &load).unwrap();
    while running.progress().answered < 50 {
        std::thread::yield_now();
    }
    running.stop();
    let outcome = running.finish().unwrap();
    assert!(outcome.answered >= 50 && outcome.seconds < 60.0);
}

#[test]
fn nobody_there_is_an_error_that_says_where() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let load = LoadSpec::closed(1, Duration::ZERO, Duration::from_secs(1));
    let error = generator::measure(&address, &payload(Protocol::Grpc, &address), &load).unwrap_err();
    assert!(matches!(&error, BenchError::Unreachable { server, .. } if *server == address), "{error}");
}
