//! Nothing that could differ between nodes is so much as mentioned in the state.

use std::fs;
use std::path::Path;

#[test]
fn the_state_mentions_no_clock_no_randomness_no_hash_map_no_float_no_runtime_and_no_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state");
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
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
        read += 1;
    }
    assert!(read >= 13, "{read} files");
}

#[test]
fn only_the_codec_names_the_serialisation_library() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let names_it = fs::read_to_string(&path).unwrap().contains("bincode");
            assert_eq!(names_it, path.ends_with("src/codec.rs"), "{}", path.display());
        }
    }
}
