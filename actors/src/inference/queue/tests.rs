//! The queue by itself: order, bound, pauses, ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use super::*;
use crate::inference::error::Overload;
use crate::inference::tensor::check::CheckedInput;
use crate::inference::tensor::check::InputData;

const NO_DELAY: BatchLimits = BatchLimits { max_rows: 2, max_delay: Duration::ZERO };

fn request(id: &str) -> Arc<CheckedRequest> {
    let input = CheckedInput { shape: vec![1], elements: 1, data: InputData::Raw(bytes::Bytes::new()) };
    Arc::new(CheckedRequest {
        id: id.to_owned(),
        inputs: vec![input],
        rows: 1,
        concatenable: true,
        raw: true,
        wanted: None,
    })
}

type Answered = oneshot::Receiver<Result<Answer, InferError>>;

const ONE_CLASS: RequestTerms = RequestTerms { class: 1, timeout: None };

fn new_queue(max_requests: usize) -> RequestQueue {
    let crew = Crew { instances: 1, max_rows: 1 };
    RequestQueue::new(QueueRules { model: "m".into(), max_requests, max_time: QueueTime::Adaptive, crew })
}

fn arrival(id: &str, terms: RequestTerms, deadline: Option<Instant>) -> Arrival {
    Arrival { request: request(id), check: Duration::ZERO, terms, deadline, kind: ArrivalKind::Asked }
}

fn push(queue: &RequestQueue, id: &str, deadline: Option<Instant>) -> Result<Answered, InferError> {
    push_arrival(queue, arrival(id, ONE_CLASS, deadline))
}

fn push_class(queue: &RequestQueue, id: &str, class: u32) -> Result<Answered, InferError> {
    push_arrival(queue, arrival(id, RequestTerms { class, timeout: None }, None))
}

/// Puts a request in for good, as if its caller would wait for ever.
fn push_arrival(queue: &RequestQueue, arrival: Arrival) -> Result<Answered, InferError> {
    let (reply, answered) = oneshot::channel();
    queue.push(arrival, reply)?;
    queue.arrived.notify_one();
    Ok(answered)
}

fn ids(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.request.id.as_str()).collect()
}

fn take(queue: &RequestQueue) -> Vec<Job> {
    queue.take(NO_DELAY, || false).expect("there is work")
}

#[test]
fn requests_leave_in_order_and_come_back_to_their_places() {
    let queue = new_queue(10);
    let _answers: Vec<Answered> = ["a", "b", "c", "d"].map(|id| push(&queue, id, None).unwrap()).into();
    let first = take(&queue);
    assert_eq!(ids(&first), ["a", "b"]);
    let second = take(&queue);
    assert_eq!(ids(&second), ["c", "d"]);
    queue.put_back(second);
    queue.put_back(first);
    assert_eq!(ids(&take(&queue)), ["a", "b"]);
    assert_eq!(ids(&take(&queue)), ["c", "d"]);
}

#[test]
fn the_bound_holds_for_new_requests_and_not_for_those_that_come_back() {
    let queue = new_queue(2);
    let _answers: Vec<Answered> = ["a", "b"].map(|id| push(&queue, id, None).unwrap()).into();
    let refusal = push(&queue, "c", None).unwrap_err();
    assert_eq!(refusal.to_string(), "the queue of model 'm' is full (2 requests wait); try again later");
    let taken = take(&queue);
    let _more: Vec<Answered> = ["d", "e"].map(|id| push(&queue, id, None).unwrap()).into();
    queue.put_back(taken);
    assert_eq!(queue.len(), 4);
}

fn refusal(outcome: Result<Answered, InferError>) -> (Overload, Duration) {
    match outcome {
        Err(InferError::Overloaded { reason, retry_after, .. }) => (reason, retry_after),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_advice_to_try_again_follows_the_pace_of_the_runs() {
    let queue = new_queue(2);
    queue.note_run(Duration::from_secs(2), 1);
    let _answers: Vec<Answered> = ["a", "b"].map(|id| push(&queue, id, None).unwrap()).into();
    assert_eq!(refusal(push(&queue, "c", None)), (Overload::QueueFull, Duration::from_secs(2)));
}

#[test]
fn the_most_urgent_leave_first_and_within_a_class_the_first() {
    let queue = new_queue(10);
    let pushed = [("a", 3), ("b", 1), ("c", 2), ("d", 1), ("e", 3), ("f", 2)];
    let _answers = pushed.map(|(id, class)| push_class(&queue, id, class).unwrap());
    let first = take(&queue);
    assert_eq!(ids(&first), ["b", "d"]);
    assert_eq!(ids(&take(&queue)), ["c", "f"]);
    queue.put_back(first);
    assert_eq!(ids(&take(&queue)), ["b", "d"]);
    assert_eq!(ids(&take(&queue)), ["a", "e"]);
}

#[test]
fn a_batch_is_filled_across_classes() {
    let queue = new_queue(10);
    let _answers = [("a", 2), ("b", 1), ("c", 3)].map(|(id, class)| push_class(&queue, id, class).unwrap());
    assert_eq!(ids(&take(&queue)), ["b", "a"]);
    assert_eq!(ids(&take(&queue)), ["c"]);
}

#[test]
fn in_a_full_queue_a_more_urgent_request_displaces_the_newest_of_the_least_urgent() {
    let queue = new_queue(3);
    let pushed = [("old", 3), ("new", 3), ("middle", 2)];
    let [mut old, mut new, mut middle] = pushed.map(|(id, class)| push_class(&queue, id, class).unwrap());
    assert_eq!(refusal(push_class(&queue, "equal", 3)).0, Overload::QueueFull);
    let _urgent = push_class(&queue, "urgent", 1).unwrap();
    let error = new.try_recv().unwrap().unwrap_err();
    assert!(matches!(error, InferError::Overloaded { reason: Overload::Displaced, .. }), "{error:?}");
    assert!(error.to_string().contains("model 'm'"), "{error}");
    assert!(old.try_recv().is_err() && middle.try_recv().is_err());
    assert_eq!(queue.len(), 3);
    assert_eq!(ids(&take(&queue)), ["urgent", "middle"]);
    assert_eq!(ids(&take(&queue)), ["old"]);
}

#[test]
fn the_least_urgent_starve_for_sixteen_batches_and_no_longer() {
    let queue = new_queue(100);
    let _starving = push_class(&queue, "starving", 2).unwrap();
    let mut answers = Vec::new();
    let limits = BatchLimits { max_rows: 1, max_delay: Duration::ZERO };
    loop {
        answers.push(push_class(&queue, "urgent", 1).unwrap());
        if ids(&queue.take(limits, || false).unwrap()) == ["starving"] {
            break;
        }
    }
    assert_eq!(answers.len(), 16, "one batch each");
    assert_eq!(ids(&queue.take(limits, || false).unwrap()), ["urgent"]);
}

#[test]
fn what_could_not_begin_in_time_is_refused_at_once_with_the_time_that_is_short() {
    let queue = new_queue(100);
    queue.note_run(Duration::from_secs(10), 1);
    let now = Instant::now();
    let _waiting: Vec<Answered> = (0..3).map(|_| push(&queue, "w", None).unwrap()).collect();
    let (reason, retry_after) = refusal(push(&queue, "x", Some(now + Duration::from_secs(20))));
    assert_eq!(reason, Overload::Deadline);
    assert!(retry_after >= Duration::from_secs(10), "{retry_after:?}");
    assert!(push(&queue, "y", Some(now + Duration::from_secs(60))).is_ok());
    let timeout = RequestTerms { class: 1, timeout: Some(Duration::from_secs(30)) };
    assert_eq!(refusal(push_arrival(&queue, arrival("z", timeout, None))).0, Overload::Deadline);
    // Those before whom it goes do not count.
    let urgent = RequestTerms { class: 0, timeout: Some(Duration::from_secs(1)) };
    assert!(push_arrival(&queue, arrival("urgent", urgent, None)).is_ok());
}

#[test]
fn an_estimate_never_keeps_a_request_from_an_idle_queue() {
    let queue = new_queue(10);
    queue.note_run(Duration::from_secs(3_600), 1);
    assert!(push(&queue, "a", Some(Instant::now() + Duration::from_secs(1))).is_ok());
}

#[test]
fn the_queue_is_bounded_in_time_as_well() {
    let queue = new_queue(10_000);
    queue.note_run(Duration::from_millis(100), 1);
    let mut answers = Vec::new();
    let refused = loop {
        match push(&queue, "a", None) {
            Ok(answer) => answers.push(answer),
            refused => break refused,
        }
    };
    assert_eq!(refusal(refused).0, Overload::QueueTime);
    assert_eq!(answers.len(), 39);
    let probe = Arrival { kind: ArrivalKind::Probe, ..arrival("probe", ONE_CLASS, None) };
    assert!(push_arrival(&queue, probe).is_ok());
    let part = Arrival { kind: ArrivalKind::Part, ..arrival("part", ONE_CLASS, None) };
    assert!(push_arrival(&queue, part).is_ok());
}

#[test]
fn a_timeout_that_passes_is_named_with_the_wait() {
    let queue = new_queue(10);
    let timeout = RequestTerms { class: 1, timeout: Some(Duration::from_millis(1)) };
    let far = Some(Instant::now() + Duration::from_secs(60));
    let mut late = push_arrival(&queue, arrival("late", timeout, far)).unwrap();
    let passed = Instant::now() + Duration::from_millis(1);
    let _here = push(&queue, "here", None).unwrap();
    while Instant::now() <= passed {
        thread::yield_now();
    }
    assert_eq!(ids(&take(&queue)), ["here"]);
    let error = late.try_recv().unwrap().unwrap_err();
    let InferError::DeadlineExceeded(text) = error else { panic!("{error:?}") };
    assert!(
        text.starts_with("the request to model 'm' has waited ") && text.contains("timeout is 1ms"),
        "{text}"
    );
}

#[test]
fn those_who_are_late_or_gone_are_not_handed_out() {
    let queue = new_queue(10);
    let deadline = Instant::now() + Duration::from_millis(1);
    let mut late = push(&queue, "late", Some(deadline)).unwrap();
    drop(push(&queue, "gone", None).unwrap());
    let _answer = push(&queue, "here", None).unwrap();
    while Instant::now() <= deadline {
        thread::yield_now();
    }
    assert_eq!(ids(&take(&queue)), ["here"]);
    assert!(matches!(late.try_recv(), Ok(Err(InferError::DeadlineExceeded(_)))));
}

#[test]
fn a_pause_ends_when_the_batch_is_full() {
    let queue = Arc::new(new_queue(10));
    let limits = BatchLimits { max_rows: 2, max_delay: Duration::from_secs(60) };
    let _first = push(&queue, "a", None).unwrap();
    let taker = thread::spawn({
        let queue = Arc::clone(&queue);
        move || queue.take(limits, || false).map(|jobs| jobs.len())
    });
    let _second = push(&queue, "b", None).unwrap();
    assert_eq!(taker.join().unwrap(), Some(2));
}

#[test]
fn a_pause_ends_when_its_time_is_over() {
    let queue = new_queue(10);
    let _answer = push(&queue, "a", None).unwrap();
    let delay = Duration::from_millis(20);
    let asked_at = Instant::now();
    let jobs = queue.take(BatchLimits { max_rows: 2, max_delay: delay }, || false).unwrap();
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0].queued_at.elapsed() >= delay, "{:?}", asked_at.elapsed());
}

#[test]
fn draining_hands_out_the_rest_and_then_ends() {
    let queue = new_queue(10);
    let _answer = push(&queue, "a", None).unwrap();
    queue.drain();
    assert!(matches!(push(&queue, "b", None), Err(InferError::Unavailable(_))));
    assert_eq!(ids(&take(&queue)), ["a"]);
    assert!(queue.take(NO_DELAY, || false).is_none());
}

#[test]
fn failing_answers_everyone_with_the_reason() {
    let queue = new_queue(10);
    let mut waiting = push(&queue, "a", None).unwrap();
    let mut taken_answer = push(&queue, "b", None).unwrap();
    let limits = BatchLimits { max_rows: 1, max_delay: Duration::ZERO };
    let first = queue.take(limits, || false).unwrap();
    queue.fail("it is broken");
    let unavailable = |answer: Result<Result<Answer, InferError>, _>| match answer {
        Ok(Err(InferError::Unavailable(text))) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(unavailable(taken_answer.try_recv()), "it is broken");
    queue.put_back(first);
    assert_eq!(unavailable(waiting.try_recv()), "it is broken");
    assert!(matches!(push(&queue, "c", None), Err(InferError::Unavailable(text)) if text == "it is broken"));
    assert!(queue.take(NO_DELAY, || false).is_none());
}

#[test]
fn an_idle_taker_is_woken_to_stop() {
    let queue = Arc::new(new_queue(10));
    let stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let taker = thread::spawn({
        let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
        move || queue.take(NO_DELAY, || stopped.load(Relaxed)).is_none()
    });
    stopped.store(true, Relaxed);
    queue.wake_all();
    assert!(taker.join().unwrap());
}
