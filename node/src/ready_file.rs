//! `--ready-file`: tells whoever started this node where it listens, and when it
//! can answer. Written aside and renamed, so that a reader sees all or nothing.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ReadyFile {
    /// Whether the node can answer predictions.
    pub(crate) ready: bool,
    /// Null until the cluster has given it one.
    pub(crate) node_id: Option<u64>,
    /// `host:port`, as others should dial it; so are the next three.
    pub(crate) rest: String,
    pub(crate) grpc: String,
    pub(crate) metrics: String,
    pub(crate) peer: String,
}

/// Replaces the file.
pub(crate) fn write(path: &Path, content: &ReadyFile) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.tmp", std::process::id()));
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    file.write_all(b"\n")?;
    drop(file);
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_file_has_the_documented_keys_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let content = ReadyFile {
            ready: true,
            node_id: Some(1000),
            rest: "127.0.0.1:1".into(),
            grpc: "127.0.0.1:2".into(),
            metrics: "127.0.0.1:3".into(),
            peer: "127.0.0.1:4".into(),
        };
        write(&path, &content).unwrap();
        let expected = r#"{"ready":true,"node_id":1000,"rest":"127.0.0.1:1","grpc":"127.0.0.1:2","metrics":"127.0.0.1:3","peer":"127.0.0.1:4"}"#;
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), expected);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
