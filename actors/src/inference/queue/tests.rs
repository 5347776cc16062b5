//! The queue by itself: order, bound, pauses, ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;

use super::*;
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

/// Puts a request in for good, as if its caller would wait for ever.
fn push(queue: &RequestQueue, id: &str, deadline: Option<Instant>) -> Result<Answered, InferError> {
    let (reply, answered) = oneshot::channel();
    queue.push(request(id), Duration::ZERO, deadline, reply)?;
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
    let queue = RequestQueue::new("m", 10);
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
    let queue = RequestQueue::new("m", 2);
    let _answers: Vec<Answered> = ["a", "b"].map(|id| push(&queue, id, None).unwrap()).into();
    assert!(matches!(push(&queue, "c", None), Err(InferError::QueueFull { limit: 2, .. })));
    let taken = take(&queue);
    let _more: Vec<Answered> = ["d", "e"].map(|id| push(&queue, id, None).unwrap()).into();
    queue.put_back(taken);
    assert_eq!(queue.len(), 4);
}

#[test]
fn the_advice_to_try_again_follows_the_pace_of_the_runs() {
    let queue = RequestQueue::new("m", 2);
    queue.note_run(Duration::from_secs(4), 2);
    let _answers: Vec<Answered> = ["a", "b"].map(|id| push(&queue, id, None).unwrap()).into();
    let refusal = push(&queue, "c", None).unwrap_err();
    let InferError::QueueFull { retry_after, .. } = refusal else { panic!("{refusal:?}") };
    assert_eq!(retry_after, Duration::from_secs(2));
}

#[test]
fn those_who_are_late_or_gone_are_not_handed_out() {
    let queue = RequestQueue::new("m", 10);
    let deadline = Instant::now() + Duration::from_millis(1);
    let mut late = push(&queue, "late", Some(deadline)).unwrap();
    drop(push(&queue, "gone", None).unwrap());
    let _answer = push(&queue, "here", None).unwrap();
    while Instant::now() <= deadline {
        thread::yield_now();
    }
    assert_eq!(ids(&take(&queue)), ["here"]);
    assert!(matches!(late.try_recv(), Ok(Err(InferError::DeadlineExceeded { .. }))));
}

#[test]
fn a_pause_ends_when_the_batch_is_full() {
    let queue = Arc::new(RequestQueue::new("m", 10));
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
    let queue = RequestQueue::new("m", 10);
    let _answer = push(&queue, "a", None).unwrap();
    let delay = Duration::from_millis(20);
    let asked_at = Instant::now();
    let jobs = queue.take(BatchLimits { max_rows: 2, max_delay: delay }, || false).unwrap();
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0].queued_at.elapsed() >= delay, "{:?}", asked_at.elapsed());
}

#[test]
fn draining_hands_out_the_rest_and_then_ends() {
    let queue = RequestQueue::new("m", 10);
    let _answer = push(&queue, "a", None).unwrap();
    queue.drain();
    assert!(matches!(push(&queue, "b", None), Err(InferError::Unavailable(_))));
    assert_eq!(ids(&take(&queue)), ["a"]);
    assert!(queue.take(NO_DELAY, || false).is_none());
}

#[test]
fn failing_answers_everyone_with_the_reason() {
    let queue = RequestQueue::new("m", 10);
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
    let queue = Arc::new(RequestQueue::new("m", 10));
    let stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let taker = thread::spawn({
        let (queue, stopped) = (Arc::clone(&queue), Arc::clone(&stopped));
        move || queue.take(NO_DELAY, || stopped.load(Relaxed)).is_none()
    });
    stopped.store(true, Relaxed);
    queue.wake_all();
    assert!(taker.join().unwrap());
}
