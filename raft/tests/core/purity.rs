//! Nothing that could differ between nodes is so much as mentioned in the state.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_state_mentions_no_clock_no_randomness_no_hash_map_no_float_no_runtime_and_no_file() {
    let files = files_under("src/state");
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        for word in [
            "std::time",
            "Instant",
            "SystemTime",
            "rand::",
            "thread_rng",
            "HashMap",
            "HashSet",
            "f32",
            "f64",
            "tokio",
            "async ",
            "std::fs",
            "std::io",
            "std::net",
            "std::env",
            "unsafe",
        ] {
            let found = text.lines().find(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains(word)
            });
            assert_eq!(found, None, "'{word}' in {}", path.display());
        }
    }
    assert!(files.len() >= 15, "{} files", files.len());
}

#[test]
fn only_the_codec_names_the_serialisation_library() {
    for path in files_under("src") {
        let names_it = fs::read_to_string(&path).unwrap().contains("bincode");
        assert_eq!(names_it, path.ends_with("src/codec.rs"), "{}", path.display());
    }
}

/// All files of a folder of this crate, and of the folders in it.
fn files_under(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}
