//! Sleeping until a moment, to microseconds: tokio's own timer counts in
//! milliseconds, which would send an open loop's requests in bursts.

use std::io;
use std::time::{Duration, Instant};

/// Sleeps; one per thread.
pub(crate) struct Pacer {
    #[cfg(target_os = "linux")]
    /// A timerfd is read like a pipe, and tokio watches a pipe without `unsafe`.
    timer: tokio::net::unix::pipe::Receiver,
}

#[cfg(target_os = "linux")]
impl Pacer {
    /// Needs a tokio runtime. Errors: no more file descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(timer)? })
    }

    /// Returns at once where `moment` is past. Cancel-safe.
    pub(crate) async fn sleep_until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let wait = moment.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            self.arm(wait)?;
            self.timer.readable().await?;
            // The clock decides, not the count of expiries that is read here.
            let _ = self.timer.try_read(&mut [0; 8]);
        }
    }

    fn arm(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let setting = Itimerspec { it_interval: never, it_value: once };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
impl Pacer {
    /// Never fails here.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// To milliseconds only, where there is no timerfd.
    pub(crate) async fn sleep_until(&self, moment: Instant) -> io::Result<()> {
        tokio::time::sleep_until(moment.into()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn it_never_wakes_early_and_a_past_moment_costs_nothing() {
        let pacer = Pacer::new().unwrap();
        let begin = Instant::now();
        pacer.sleep_until(begin).await.unwrap();
        for step in 1..=20_u32 {
            let moment = begin + Duration::from_micros(700) * step;
            pacer.sleep_until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
        }
    }
}
