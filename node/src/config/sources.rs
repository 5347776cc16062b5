//! Defaults, file, environment and flags, in this order; the later win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::keys::{KEYS, Key};
use super::settings::Settings;
use crate::nearest::did_you_mean;

const VARIABLE_PREFIX: &str = "STARLING_";
/// Read by the client commands, not by a node.
const FOREIGN_VARIABLES: &[&str] = &["STARLING_SERVER", "STARLING_CONFIG"];
/// A variable with so few letters wrong is a typing error; one further from all
/// keys is somebody else's (Kubernetes sets STARLING_PORT_8001_TCP and more).
const VARIABLE_TYPO_EDITS_MAX: usize = 2;
/// Shorter names differ from each other by little: one edit in so many letters.
const VARIABLE_LETTERS_PER_EDIT: usize = 4;

/// What was given, before it is checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// Flags, by key name.
    pub(crate) flags: BTreeMap<&'static str, String>,
    /// All environment variables.
    pub(crate) environment: BTreeMap<String, String>,
}

/// A setting that cannot be used: where it stands, which it is, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("config file {path} cannot be read: {reason}")]
    Unreadable { path: PathBuf, reason: String },
    #[error("config file {path} is not TOML: {reason}")]
    NotToml { path: PathBuf, reason: String },
    #[error("{origin}: key '{name}' is not known{nearest}")]
    UnknownKey { origin: String, name: String, nearest: String },
    #[error("{origin}: key '{name}' {problem}")]
    BadValue { origin: String, name: String, problem: String },
}

/// Reads everything.
pub(crate) fn resolve(given: &Given) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    for key in KEYS {
        set_text(&mut settings, key, key.default, || "defaults".into())?;
    }
    if let Some(path) = &given.file {
        apply_file(&mut settings, path)?;
    }
    apply_environment(&mut settings, &given.environment)?;
    for key in KEYS {
        if let Some(text) = given.flags.get(key.name) {
            set_text(&mut settings, key, text, || format!("flag --{}", key.flag()))?;
        }
    }
    check_together(&settings)?;
    Ok(settings)
}

fn set_text(
    settings: &mut Settings,
    key: &Key,
    text: &str,
    origin: impl Fn() -> String,
) -> Result<(), ConfigError> {
    key.field.set_text(settings, text).map_err(|problem| ConfigError::BadValue {
        origin: origin(),
        name: key.name.into(),
        problem,
    })
}

fn apply_file(settings: &mut Settings, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.into(), reason: error.to_string() })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        ConfigError::NotToml { path: path.into(), reason: format!("{place}{}", one_line(error.message())) }
    })?;
    for (name, value) in &table {
        let origin = format!("config file {}", path.display());
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let nearest = did_you_mean(name, KEYS.iter().filter(|key| !key.hidden).map(|key| key.name));
            return Err(ConfigError::UnknownKey { origin, name: name.clone(), nearest });
        };
        key.field.set_toml(settings, value).map_err(|problem| ConfigError::BadValue {
            origin,
            name: name.clone(),
            problem,
        })?;
    }
    Ok(())
}

fn apply_environment(
    settings: &mut Settings,
    environment: &BTreeMap<String, String>,
) -> Result<(), ConfigError> {
    for (variable, text) in environment {
        if !variable.starts_with(VARIABLE_PREFIX) || FOREIGN_VARIABLES.contains(&variable.as_str()) {
            continue;
        }
        if let Some(key) = KEYS.iter().find(|key| key.variable() == *variable) {
            set_text(settings, key, text, || format!("environment variable {variable}"))?;
            continue;
        }
        if let Some(key) = KEYS.iter().find(|key| is_typo(variable, &key.variable())) {
            return Err(ConfigError::UnknownKey {
                origin: "environment".into(),
                name: variable.clone(),
                nearest: format!("; did you mean '{}'?", key.variable()),
            });
        }
    }
    Ok(())
}

fn is_typo(variable: &str, known: &str) -> bool {
    let letters = variable.len() - VARIABLE_PREFIX.len();
    let edits_max = VARIABLE_TYPO_EDITS_MAX.min(letters / VARIABLE_LETTERS_PER_EDIT);
    strsim::osa_distance(known, variable) <= edits_max
}

/// What no single key can check.
fn check_together(settings: &Settings) -> Result<(), ConfigError> {
    let bad = |name: &str, problem: String| {
        Err(ConfigError::BadValue { origin: "settings together".into(), name: name.into(), problem })
    };
    if settings.election_timeout_min >= settings.election_timeout_max {
        return bad(
            "election_timeout_min",
            format!(
                "is {:?}, must be below election_timeout_max ({:?})",
                settings.election_timeout_min, settings.election_timeout_max
            ),
        );
    }
    if settings.heartbeat_interval * 2 > settings.election_timeout_min {
        return bad(
            "heartbeat_interval",
            format!(
                "is {:?}, must be at most half of election_timeout_min ({:?})",
                settings.heartbeat_interval, settings.election_timeout_min
            ),
        );
    }
    let ports = [settings.rest_port, settings.grpc_port, settings.metrics_port, settings.peer_port];
    for (index, port) in ports.iter().enumerate() {
        if *port != 0 && ports[..index].contains(port) {
            return bad("*_port", format!("is {port} twice, the four ports must differ"));
        }
    }
    for address in &settings.join {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none() {
            return bad("join", format!("has '{address}', must be HOST:PEER_PORT, such as 10.0.0.1:8003"));
        }
    }
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use super::*;

    fn with_file(text: &str) -> (tempfile::TempDir, Given) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("starling.toml");
        std::fs::write(&path, text).unwrap();
        (directory, Given { file: Some(path), ..Given::default() })
    }

    fn environment(pairs: &[(&str, &str)]) -> Given {
        let environment =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Given { environment, ..Given::default() }
    }

    fn refusal_of_file(text: &str) -> String {
        let (_directory, given) = with_file(text);
        resolve(&given).unwrap_err().to_string()
    }

    #[test]
    fn every_default_is_a_value_of_its_type() {
        let settings = resolve(&Given::default()).unwrap();
        assert_eq!(settings.rest_port, 8000);
        assert_eq!(settings.data_dir, PathBuf::from("./starling-data"));
        assert_eq!(settings.max_request_bytes, 64 * 1024 * 1024);
        assert_eq!(settings.election_timeout_max, Duration::from_millis(600));
        assert!(settings.join.is_empty() && settings.advertise.is_none() && !settings.insecure);
    }

    #[test]
    fn no_two_keys_share_a_name() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name), "{}", key.name);
        }
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let (_directory, mut given) = with_file("rest_port = 1\ngrpc_port = 1\nmetrics_port = 9\n");
        given.environment.insert("STARLING_REST_PORT".into(), "2".into());
        given.environment.insert("STARLING_GRPC_PORT".into(), "2".into());
        given.flags.insert("rest_port", "3".into());
        let settings = resolve(&given).unwrap();
        assert_eq!((settings.rest_port, settings.grpc_port, settings.metrics_port), (3, 2, 9));
    }

    #[test]
    fn a_file_may_use_lists_tables_and_units() {
        let (_directory, given) = with_file(
            "join = [\"a:1\", \"b:2\"]\nlabels = { zone = \"a\" }\nmax_request_bytes = \"1MiB\"\n\
             max_artefact_bytes = 2048\ndead_after = \"5min\"\ninsecure = true\nvoters_max = 3\n",
        );
        let settings = resolve(&given).unwrap();
        assert_eq!(settings.join, ["a:1", "b:2"]);
        assert_eq!(settings.labels["zone"], "a");
        assert_eq!((settings.max_request_bytes, settings.max_artefact_bytes), (1_048_576, 2_048));
        assert_eq!((settings.dead_after, settings.voters_max.as_str()), (Duration::from_secs(300), "3"));
        assert!(settings.insecure);
    }

    #[test]
    fn a_key_that_is_not_known_is_refused_with_the_nearest() {
        let text = refusal_of_file("rest_prot = 1");
        assert!(text.contains("starling.toml") && text.contains("'rest_prot'"), "{text}");
        assert!(text.ends_with("did you mean 'rest_port'?"), "{text}");
        let typo = resolve(&environment(&[("STARLING_REST_PROT", "1")])).unwrap_err().to_string();
        assert!(typo.contains("did you mean 'STARLING_REST_PORT'?"), "{typo}");
    }

    #[test]
    fn variables_that_others_set_are_left_alone() {
        let kubernetes = [
            ("STARLING_SERVICE_HOST", "10.0.0.1"),
            ("STARLING_PORT", "tcp://10.0.0.1:8001"),
            ("STARLING_PORT_8001_TCP_ADDR", "10.0.0.1"),
            ("STARLING_SERVER", "a:1"),
        ];
        assert!(resolve(&environment(&kubernetes)).is_ok());
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key_and_origin() {
        let cases = [
            ("rest_port = \"8000\"", "key 'rest_port' is the string \"8000\", must be port"),
            ("rest_port = 70000", "key 'rest_port' is '70000', must be port"),
            ("insecure = 1", "key 'insecure' is the number 1, must be true or false"),
            ("dead_after = 5", "key 'dead_after' is the number 5, must be duration"),
            ("dead_after = \"1ms\"", "key 'dead_after' is '1ms', must be between 1s and"),
            ("durability = \"none\"", "must be one of power-loss, process-crash"),
            ("join = [1]", "key 'join' is a list"),
            ("max_queue = 0", "key 'max_queue' is '0', must be whole number, 1 to"),
            ("rest_port =", "is not TOML: line 1"),
        ];
        for (file, expected) in cases {
            let text = refusal_of_file(file);
            assert!(text.contains(expected) && text.contains("starling.toml"), "{file} gave: {text}");
        }
        let variable = resolve(&environment(&[("STARLING_MAX_QUEUE", "many")])).unwrap_err().to_string();
        assert!(variable.starts_with("environment variable STARLING_MAX_QUEUE"), "{variable}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let cases = [
            ("election_timeout_min = \"2s\"", "election_timeout_max"),
            ("heartbeat_interval = \"200ms\"", "half of election_timeout_min"),
            ("grpc_port = 8000", "8000 twice"),
            ("join = [\"somewhere\"]", "HOST:PEER_PORT"),
        ];
        for (file, expected) in cases {
            let text = refusal_of_file(file);
            assert!(text.contains(expected), "{file} gave: {text}");
        }
        let (_directory, zeroes) = with_file("rest_port = 0\ngrpc_port = 0\n");
        assert!(resolve(&zeroes).is_ok());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let given = Given { file: Some("/does/not/exist.toml".into()), ..Given::default() };
        assert!(resolve(&given).unwrap_err().to_string().contains("/does/not/exist.toml cannot be read"));
    }
}
