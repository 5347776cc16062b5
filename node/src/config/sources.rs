//! Defaults, file, environment and flags, in this order; the later win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::keys::{KEYS, Key};
use super::settings::Settings;

const VARIABLE_PREFIX: &str = "STARLING_";
/// Read by the client commands, not by a node.
const FOREIGN_VARIABLES: &[&str] = &["STARLING_SERVER", "STARLING_CONFIG"];
/// A variable so near to a known one is a typing error; one further away is
/// somebody else's (Kubernetes sets STARLING_PORT_8001_TCP and more).
const VARIABLE_TYPO_EDITS_MAX: usize = 2;

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
            let nearest = nearest(name, KEYS.iter().filter(|key| !key.hidden).map(|key| key.name.to_owned()));
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
        let near = |key: &&Key| strsim::osa_distance(&key.variable(), variable) <= VARIABLE_TYPO_EDITS_MAX;
        if let Some(key) = KEYS.iter().find(near) {
            return Err(ConfigError::UnknownKey {
                origin: "environment".into(),
                name: variable.clone(),
                nearest: format!("; did you mean '{}'?", key.variable()),
            });
        }
    }
    Ok(())
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

/// `; did you mean 'x'?`, or nothing if nothing is near.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let best = known
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match best {
        Some((_, candidate)) => format!("; did you mean '{candidate}'?"),
        None => String::new(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
