//! What `model push` and `apply` send: an ONNX file as it is, or one tar of a
//! model with its external data and golden samples.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use starling_actors::inference::bundle::{self, BundleError, Contents};

use super::CliError;

/// Bytes on this machine, hashed before they are sent.
#[derive(Clone)]
pub struct LocalArtefact {
    source: Source,
    /// Lower-case hexadecimal SHA-256.
    pub sha256: String,
    /// Its size.
    pub size_bytes: u64,
}

#[derive(Clone)]
enum Source {
    File(PathBuf),
    /// Packed anew each time it is read: the same tar each time.
    Bundle(Contents),
}

impl LocalArtefact {
    /// Of an ONNX file, a folder with a model, or a tar of such, and of golden
    /// samples. Reads everything once, for digest and size.
    pub fn read(path: &Path, golden: &[PathBuf]) -> Result<Self, CliError> {
        let source = source_of(path, golden)?;
        let mut counted = Counted { hasher: Sha256::new(), size_bytes: 0 };
        source.write_to(&mut counted)?;
        Ok(Self { source, sha256: hex::encode(counted.hasher.finalize()), size_bytes: counted.size_bytes })
    }

    /// Writes all its bytes. Blocking.
    pub fn write_to(&self, out: impl Write) -> Result<(), CliError> {
        self.source.write_to(out)
    }
}

impl Source {
    fn write_to(&self, mut out: impl Write) -> Result<(), CliError> {
        match self {
            Self::Bundle(contents) => contents.write(out).map_err(|error| CliError::Local(error.to_string())),
            Self::File(path) => File::open(path)
                .and_then(|mut file| io::copy(&mut file, &mut out))
                .and_then(|_| out.flush())
                .map_err(|error| CliError::Local(format!("{} cannot be read: {error}", path.display()))),
        }
    }
}

fn source_of(path: &Path, golden: &[PathBuf]) -> Result<Source, CliError> {
    let wrong = |error: BundleError| CliError::Local(format!("{}: {error}", path.display()));
    let file = || Source::File(path.to_owned());
    if path.is_file() && bundle::is_bundle(path).map_err(wrong)? {
        if golden.is_empty() {
            return Ok(file());
        }
        let reason = "is a bundle already; put the golden samples into it, or push the folder it was made of";
        return Err(CliError::Local(format!("{} {reason}", path.display())));
    }
    match Contents::of(path, golden) {
        Ok(contents) if contents.single_file() == Some(path) => Ok(file()),
        Ok(contents) => Ok(Source::Bundle(contents)),
        // The node says it better: it asks the runtime.
        Err(BundleError::NotOnnx { .. }) if golden.is_empty() => Ok(file()),
        Err(BundleError::Io { path, source }) => {
            Err(CliError::Local(format!("{} cannot be read: {source}", path.display())))
        }
        Err(error) => Err(wrong(error)),
    }
}

struct Counted {
    hasher: Sha256,
    size_bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn testdata(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/testdata").join(name)
    }

    fn refusal(path: &Path, golden: &[PathBuf]) -> String {
        match LocalArtefact::read(path, golden) {
            Err(CliError::Local(reason)) => reason,
            _ => panic!("{} must be refused", path.display()),
        }
    }

    #[test]
    fn a_model_that_is_whole_in_itself_goes_as_it_is() {
        let artefact = LocalArtefact::read(&testdata("matmul.onnx"), &[]).unwrap();
        let mut sent = Vec::new();
        artefact.write_to(&mut sent).unwrap();
        assert_eq!(sent, std::fs::read(testdata("matmul.onnx")).unwrap());
        assert_eq!(artefact.size_bytes, sent.len() as u64);
        assert_eq!(artefact.sha256, hex::encode(Sha256::digest(&sent)));
    }

    #[test]
    fn what_is_sent_of_a_folder_is_what_was_hashed() {
        let of_folder = LocalArtefact::read(&testdata("external"), &[]).unwrap();
        let mut sent = Vec::new();
        of_folder.write_to(&mut sent).unwrap();
        assert_eq!(of_folder.sha256, hex::encode(Sha256::digest(&sent)));
        let of_file = LocalArtefact::read(&testdata("external/model.onnx"), &[]).unwrap();
        assert_eq!(of_file.sha256, of_folder.sha256);
    }

    #[test]
    fn what_leads_out_of_the_folder_or_is_missing_is_refused_here_already() {
        let reason = refusal(&testdata("external_parent.onnx"), &[]);
        assert!(reason.contains("'../../etc/passwd', which leaves its folder by '..'"), "{reason}");
        let reason = refusal(&testdata("no_such.onnx"), &[]);
        assert!(reason.contains("no_such.onnx cannot be read"), "{reason}");
    }

    #[test]
    fn samples_do_not_go_beside_a_tar() {
        let folder = tempfile::tempdir().unwrap();
        let tar = folder.path().join("model.tar");
        let mut bytes = Vec::new();
        LocalArtefact::read(&testdata("external"), &[]).unwrap().write_to(&mut bytes).unwrap();
        std::fs::write(&tar, &bytes).unwrap();
        let whole = LocalArtefact::read(&tar, &[]).unwrap();
        assert_eq!(whole.size_bytes, bytes.len() as u64);
        assert!(refusal(&tar, std::slice::from_ref(&tar)).contains("is a bundle already"));
    }
}
