//! How many files and connections the process may have open. What systems give
//! at first is often far below `max_connections`, and the process may raise it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Settings;

/// Ports that clients connect to.
const CLIENT_PORTS: u64 = 3;
/// Logs, history, artefacts, peers.
const OTHER_FILES: u64 = 1_024;

/// Raises the limit as far as the system allows, and says so where that is too
/// little for the connections that are allowed.
pub(super) fn raise_limit(settings: &Settings) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CLIENT_PORTS.saturating_mul(settings.max_connections).saturating_add(OTHER_FILES);
    let Some(raised) = raised(limit, wanted) else { return };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let allowed = getrlimit(Resource::Nofile).current;
    if allowed.is_some_and(|allowed| allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than max_connections may need; raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
}

/// `None`: it is high enough.
fn raised(limit: Rlimit, wanted: u64) -> Option<Rlimit> {
    let current = limit.current?;
    if current >= wanted {
        return None;
    }
    let allowed = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    Some(Rlimit { current: Some(allowed), maximum: limit.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn the_limit_is_raised_as_far_as_is_wanted_and_allowed() {
        let to = |current, maximum| raised(limit(current, maximum), 5_000).map(|raised| raised.current);
        assert_eq!(to(Some(1_024), Some(1_000_000)), Some(Some(5_000)));
        assert_eq!(to(Some(1_024), Some(4_096)), Some(Some(4_096)));
        assert_eq!(to(Some(1_024), None), Some(Some(5_000)));
        assert_eq!(to(Some(5_000), Some(5_000)), None);
        assert_eq!(to(None, None), None);
    }
}
