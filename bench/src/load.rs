//! What load to make: how requests arrive, over which protocol, for how long.

use std::time::Duration;

use crate::BenchError;

/// How the generator and the server talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, tensors as raw bytes.
    Grpc,
    /// REST, tensors as JSON numbers.
    Rest,
    /// REST with the binary tensor extension, in both directions.
    RestBinary,
}

impl Protocol {
    /// As it is written on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
            Self::RestBinary => "rest-binary",
        }
    }
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// So many clients; each sends its next request when its last is answered.
    Closed {
        /// At least 1.
        clients: usize,
    },
    /// At a rate, whatever the server does.
    Open {
        /// Requests per second, above 0.
        rate: f64,
        /// How they are spread.
        spacing: Spacing,
        /// Requests in flight at most; further ones wait and are sent late.
        in_flight_max: usize,
    },
}

/// How arrivals of one rate are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// As independent users come: exponential gaps.
    Poisson,
    /// Equal gaps.
    Constant,
}

/// When a measurement is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After so long, warm-up not counted.
    After(Duration),
    /// After so many answers, warm-up not counted.
    Answers(u64),
}

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadSpec {
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Sent first and not counted.
    pub warm_up: Duration,
    /// When it is over.
    pub ending: Ending,
    /// After which a request counts as failed.
    pub timeout: Duration,
    /// Connections of gRPC, shared evenly; 0: one per client, and 16 where the
    /// loop is open. REST always has one per request in flight.
    pub connections: usize,
    /// Threads of the generator; 0: one per core, and no more than clients.
    pub threads: usize,
    /// Length of a slice of the time line.
    pub slice: Duration,
}

/// Connections of an open loop over gRPC.
const OPEN_LOOP_CONNECTIONS: usize = 16;
/// No more clients than this per measurement, nor requests in flight.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Requests in flight of an open loop that names no bound.
pub const IN_FLIGHT_DEFAULT: usize = 2_048;
const RATE_MAX: f64 = 10_000_000.0;
/// A time line keeps a histogram per slice.
const SLICES_MAX: u128 = 86_400;

impl LoadSpec {
    /// So many clients for so long, with the usual rest.
    pub fn closed(clients: usize, warm_up: Duration, duration: Duration) -> Self {
        Self::new(Arrivals::Closed { clients }, warm_up, duration)
    }

    /// Poisson arrivals at a rate for so long, with the usual rest.
    pub fn open(rate: f64, warm_up: Duration, duration: Duration) -> Self {
        let spacing = Spacing::Poisson;
        Self::new(Arrivals::Open { rate, spacing, in_flight_max: IN_FLIGHT_DEFAULT }, warm_up, duration)
    }

    fn new(arrivals: Arrivals, warm_up: Duration, duration: Duration) -> Self {
        Self {
            arrivals,
            warm_up,
            ending: Ending::After(duration),
            timeout: Duration::from_secs(10),
            connections: 0,
            threads: 0,
            slice: Duration::from_secs(1),
        }
    }

    /// Errors: counts and rates that mean nothing or are beyond all bounds.
    pub fn check(&self) -> Result<(), BenchError> {
        let refuse = |reason: &str| Err(BenchError::Asked(reason.to_owned()));
        match self.arrivals {
            Arrivals::Closed { clients } if clients == 0 || clients > IN_FLIGHT_MAX => {
                return refuse("clients must be from 1 to 65536");
            }
            Arrivals::Open { rate, .. } if !(rate > 0.0 && rate <= RATE_MAX) => {
                return refuse("the rate must be above 0 and at most 10 million per second");
            }
            Arrivals::Open { in_flight_max, .. } if in_flight_max == 0 || in_flight_max > IN_FLIGHT_MAX => {
                return refuse("requests in flight must be from 1 to 65536");
            }
            _ => {}
        }
        if self.timeout.is_zero() || self.slice.is_zero() {
            return refuse("timeout and slice must be above 0");
        }
        match self.ending {
            Ending::After(duration) if duration.is_zero() => refuse("the duration must be above 0"),
            Ending::Answers(0) => refuse("at least one request must be asked for"),
            Ending::After(duration) if duration.as_nanos() / self.slice.as_nanos() > SLICES_MAX => {
                refuse("the duration has more than 86400 slices; ask for longer ones")
            }
            _ => Ok(()),
        }
    }

    /// Requests that may be under way at once.
    pub(crate) fn in_flight_max(&self) -> usize {
        match self.arrivals {
            Arrivals::Closed { clients } => clients,
            Arrivals::Open { in_flight_max, .. } => in_flight_max,
        }
    }

    /// Threads that it really takes on so many cores.
    pub(crate) fn threads_on(&self, cores: usize) -> usize {
        let wanted = if self.threads == 0 { cores } else { self.threads };
        wanted.clamp(1, self.in_flight_max())
    }

    /// gRPC connections that it really takes.
    pub(crate) fn connections_of_grpc(&self) -> usize {
        let usual = match self.arrivals {
            Arrivals::Closed { clients } => clients,
            Arrivals::Open { .. } => OPEN_LOOP_CONNECTIONS,
        };
        let wanted = if self.connections == 0 { usual } else { self.connections };
        wanted.clamp(1, self.in_flight_max())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_closed_loop_has_a_connection_per_client_and_no_more_threads_than_clients() {
        let load = LoadSpec::closed(3, SECOND, SECOND);
        assert_eq!((load.connections_of_grpc(), load.threads_on(2), load.threads_on(8)), (3, 2, 3));
    }

    #[test]
    fn an_open_loop_has_sixteen_connections() {
        let load = LoadSpec::open(100.0, SECOND, SECOND);
        assert_eq!((load.connections_of_grpc(), load.threads_on(2)), (16, 2));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let reason = |load: LoadSpec| load.check().unwrap_err().to_string();
        assert_eq!(reason(LoadSpec::closed(0, SECOND, SECOND)), "clients must be from 1 to 65536");
        assert!(reason(LoadSpec::open(0.0, SECOND, SECOND)).contains("above 0"));
        assert!(reason(LoadSpec::open(f64::NAN, SECOND, SECOND)).contains("above 0"));
        assert_eq!(reason(LoadSpec::closed(1, SECOND, Duration::ZERO)), "the duration must be above 0");
        assert!(LoadSpec::closed(1, Duration::ZERO, SECOND).check().is_ok());
    }
}
