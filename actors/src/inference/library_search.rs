//! Where a `libonnxruntime.so` may lie, in the order in which it is looked for.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LIBRARY: &str = "libonnxruntime.so";
const PYTHON_ANSWER_MAX: Duration = Duration::from_secs(5);
/// Prints the folder of the installed package, or nothing.
const ASK_PYTHON: &str = "import importlib.util as u, os; s = u.find_spec('onnxruntime'); print(os.path.dirname(s.origin) if s and s.origin else '')";

/// Libraries that are there, and every place looked at.
pub(super) struct Candidates {
    pub looked_at: Vec<String>,
    pub found: Vec<PathBuf>,
}

impl Candidates {
    fn folder(&mut self, folder: &Path) {
        self.looked_at.push(folder.display().to_string());
        self.found.extend(library_in(folder));
    }
}

pub(super) fn candidates() -> Candidates {
    let mut candidates = Candidates { looked_at: Vec::new(), found: Vec::new() };
    if let Some(named) = env::var_os("ORT_DYLIB_PATH").filter(|named| !named.is_empty()) {
        by_name(&mut candidates, Path::new(&named));
        return candidates;
    }
    beside_the_binary(&mut candidates);
    in_python(&mut candidates);
    in_the_system(&mut candidates);
    candidates
}

#[cfg(test)]
pub(super) fn in_folder(folder: &Path) -> Candidates {
    let mut candidates = Candidates { looked_at: Vec::new(), found: Vec::new() };
    candidates.folder(folder);
    candidates
}

/// Whoever names a library wants that one, so no other is tried.
fn by_name(candidates: &mut Candidates, named: &Path) {
    candidates.looked_at.push(format!("{} (from ORT_DYLIB_PATH)", named.display()));
    if named.is_dir() {
        candidates.found.extend(library_in(named));
    } else if named.is_file() {
        candidates.found.push(named.to_owned());
    }
}

fn beside_the_binary(candidates: &mut Candidates) {
    let Ok(binary) = env::current_exe() else { return };
    if let Some(folder) = binary.parent() {
        candidates.folder(folder);
    }
}

fn in_python(candidates: &mut Candidates) {
    let found_before = candidates.found.len();
    let mut packages = Vec::new();
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        packages.extend(python_folders(&Path::new(&environment).join("lib"), "site-packages"));
    }
    if let Some(home) = env::var_os("HOME") {
        packages.extend(python_folders(&Path::new(&home).join(".local/lib"), "site-packages"));
    }
    for (lib, packages_name) in [
        ("/usr/local/lib", "dist-packages"),
        ("/usr/local/lib", "site-packages"),
        ("/usr/lib", "dist-packages"),
        ("/usr/lib", "site-packages"),
    ] {
        packages.extend(python_folders(Path::new(lib), packages_name));
    }
    for folder in packages {
        candidates.folder(&folder.join("onnxruntime/capi"));
    }
    if candidates.found.len() > found_before {
        return;
    }
    match ask_python() {
        Some(package) => candidates.folder(&package.join("capi")),
        None => candidates.looked_at.push("the package `onnxruntime` of python3".to_owned()),
    }
}

/// `LIB/python3*/PACKAGES`, newest version first.
fn python_folders(lib: &Path, packages_name: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(lib) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join(packages_name))
        .filter(|folder| folder.is_dir())
        .collect();
    folders.sort();
    folders.reverse();
    folders
}

fn ask_python() -> Option<PathBuf> {
    let mut python = Command::new("python3")
        .args(["-c", ASK_PYTHON])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let give_up_at = Instant::now() + PYTHON_ANSWER_MAX;
    while python.try_wait().ok()?.is_none() {
        if Instant::now() > give_up_at {
            let _ = python.kill();
            let _ = python.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = python.wait_with_output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(folder.trim()).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn in_the_system(candidates: &mut Candidates) {
    let from_environment = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = env::split_paths(&from_environment).filter(|folder| !folder.as_os_str().is_empty());
    let usual = [
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/lib",
    ];
    for folder in named.chain(usual.iter().map(PathBuf::from)) {
        candidates.folder(&folder);
    }
}

/// `libonnxruntime.so`, else the highest `libonnxruntime.so.VERSION`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let plain = folder.join(LIBRARY);
    if plain.is_file() {
        return Some(plain);
    }
    let versioned = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.starts_with("libonnxruntime.so.") && path.is_file()
    });
    versioned.max()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_folder_gives_the_plain_name_before_a_versioned_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(library_in(folder.path()), None);
        fs::write(folder.path().join("libonnxruntime.so.1.32.0"), b"").unwrap();
        fs::write(folder.path().join("libonnxruntime_providers_shared.so"), b"").unwrap();
        assert_eq!(library_in(folder.path()), Some(folder.path().join("libonnxruntime.so.1.32.0")));
        fs::write(folder.path().join("libonnxruntime.so"), b"").unwrap();
        assert_eq!(library_in(folder.path()), Some(folder.path().join("libonnxruntime.so")));
    }

    #[test]
    fn a_named_path_that_is_missing_is_named_and_gives_nothing() {
        let mut candidates = Candidates { looked_at: Vec::new(), found: Vec::new() };
        by_name(&mut candidates, Path::new("/nowhere/libonnxruntime.so"));
        assert_eq!(candidates.looked_at, ["/nowhere/libonnxruntime.so (from ORT_DYLIB_PATH)"]);
        assert!(candidates.found.is_empty());
    }

    #[test]
    fn without_a_name_all_four_kinds_of_places_are_listed() {
        let mut candidates = Candidates { looked_at: Vec::new(), found: Vec::new() };
        beside_the_binary(&mut candidates);
        in_python(&mut candidates);
        in_the_system(&mut candidates);
        let binary = env::current_exe().unwrap();
        assert_eq!(candidates.looked_at[0], binary.parent().unwrap().display().to_string());
        assert!(candidates.looked_at.iter().any(|place| place.contains("onnxruntime")));
        assert!(candidates.looked_at.contains(&"/usr/local/lib".to_owned()));
    }

    #[test]
    fn python_folders_come_newest_first() {
        let lib = tempfile::tempdir().unwrap();
        for version in ["python3.10", "python3.12", "perl5"] {
            fs::create_dir_all(lib.path().join(version).join("site-packages")).unwrap();
        }
        let folders = python_folders(lib.path(), "site-packages");
        let expected: Vec<PathBuf> = ["python3.12", "python3.10"]
            .iter()
            .map(|version| lib.path().join(version).join("site-packages"))
            .collect();
        assert_eq!(folders, expected);
    }
}
