//! A Triton model repository on disk: one folder per model, with a
//! `config.pbtxt` and one numbered folder per version.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::mapping::{self, Mapped};
use super::text_format;
use crate::cli::CliError;

const CONFIG_FILE: &str = "config.pbtxt";
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// One folder of the repository.
pub struct Candidate {
    /// The folder's name: what Triton's clients call the model.
    pub name: String,
    /// Its configuration, for messages.
    pub config_path: PathBuf,
    /// What to import, or why not.
    pub plan: Result<ImportPlan, String>,
}

/// A model that can be imported.
pub struct ImportPlan {
    /// What its configuration says.
    pub mapped: Mapped,
    /// In ascending order.
    pub versions: Vec<VersionFolder>,
    /// Numbers that are there and that the version policy does not serve.
    pub not_served: Vec<u64>,
}

/// One version.
pub struct VersionFolder {
    /// The folder's name.
    pub number: u64,
    /// The model's file.
    pub file: PathBuf,
}

/// Looks at every folder, in order of name. Files beside them are no models.
pub fn read(folder: &Path) -> Result<Vec<Candidate>, CliError> {
    let mut folders: Vec<PathBuf> = entries(folder).map_err(CliError::Local)?;
    folders.retain(|path| path.is_dir() && !name_of(path).starts_with('.'));
    folders.sort();
    let candidate = |path: &PathBuf| Candidate {
        name: name_of(path),
        config_path: path.join(CONFIG_FILE),
        plan: plan(path),
    };
    Ok(folders.iter().map(candidate).collect())
}

fn plan(folder: &Path) -> Result<ImportPlan, String> {
    let mapped = configuration(&folder.join(CONFIG_FILE))?;
    if let Some(name) = mapped.name.as_ref().filter(|name| **name != name_of(folder)) {
        return Err(format!(
            "its configuration names it '{name}' and its folder '{}'; Triton demands that they agree",
            name_of(folder)
        ));
    }
    let mut numbers = Vec::new();
    for path in entries(folder)? {
        // As Triton: names that are no number, or begin with 0, are not versions.
        let name = name_of(&path);
        let number = Some(name.as_str()).filter(|name| !name.starts_with('0'));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()).filter(|_| path.is_dir()));
    }
    let chosen = mapped.policy.choose(numbers.clone());
    if chosen.is_empty() {
        return Err(
            "there is no version that its version policy serves: numbered folders such as 1/".to_owned()
        );
    }
    let mut versions = Vec::with_capacity(chosen.len());
    for number in &chosen {
        let file = folder.join(number.to_string()).join(&mapped.file_name);
        if !file.exists() {
            return Err(format!("version {number} has no file {}", mapped.file_name));
        }
        versions.push(VersionFolder { number: *number, file });
    }
    numbers.retain(|number| !chosen.contains(number));
    numbers.sort_unstable();
    Ok(ImportPlan { mapped, versions, not_served: numbers })
}

/// Without a file, Triton reads everything from the model, and so does Starling.
fn configuration(path: &Path) -> Result<Mapped, String> {
    let cannot_read = |error: std::io::Error| format!("{CONFIG_FILE} cannot be read: {error}");
    let text = match std::fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot_read)?;
            text
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(cannot_read(error)),
    };
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("{CONFIG_FILE} is larger than {CONFIG_BYTES_MAX} bytes"));
    }
    let fields = text_format::parse(&text).map_err(|error| format!("{CONFIG_FILE} {error}"))?;
    mapping::map(&fields).map_err(|unfit| format!("{CONFIG_FILE} line {}: {unfit}", unfit.line))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot_read = |error: std::io::Error| format!("{} cannot be read: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot_read)? {
        paths.push(entry.map_err(cannot_read)?.path());
    }
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn models_and_the_versions_that_are_served_are_found() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            "a/config.pbtxt",
            "max_batch_size: 4 version_policy { latest { num_versions: 2 } }",
        );
        for version in ["1", "2", "10", "007", "old"] {
            write(root.path(), &format!("a/{version}/model.onnx"), "x");
        }
        write(root.path(), "b/3/model.onnx", "x");
        write(root.path(), "README.md", "no model");
        let candidates = read(root.path()).unwrap();
        let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let a = candidates[0].plan.as_ref().unwrap();
        let numbers: Vec<u64> = a.versions.iter().map(|version| version.number).collect();
        assert_eq!((numbers, a.not_served.clone()), (vec![2, 10], vec![1]));
        assert_eq!(a.versions[1].file, root.path().join("a/10/model.onnx"));
        assert_eq!(candidates[1].plan.as_ref().unwrap().versions[0].number, 3);
    }

    #[test]
    fn a_folder_that_is_no_model_says_why() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "empty/config.pbtxt", "");
        write(root.path(), "file/1/other.bin", "x");
        write(root.path(), "name/config.pbtxt", "name: \"other\"");
        write(root.path(), "syntax/config.pbtxt", "\nmax_batch_size 8");
        write(root.path(), "torch/config.pbtxt", "\n\nbackend: \"pytorch\"");
        let reasons: Vec<String> =
            read(root.path()).unwrap().into_iter().map(|candidate| candidate.plan.err().unwrap()).collect();
        for (reason, expected) in reasons.iter().zip([
            "there is no version",
            "version 1 has no file model.onnx",
            "names it 'other' and its folder 'name'",
            "config.pbtxt line 2: 'max_batch_size' is followed by neither",
            "config.pbtxt line 3: backend: 'pytorch' is another runtime",
        ]) {
            assert!(reason.contains(expected), "{reason} should contain {expected}");
        }
    }
}
