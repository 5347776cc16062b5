//! Folders become tars and tars folders; what leads out of them is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use super::*;
use crate::inference::testing::{model_file, runtime};

fn external_folder() -> PathBuf {
    model_file("external/model").parent().unwrap().to_owned()
}

/// A copy that the test may change.
fn copied_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("weights")).unwrap();
    for name in ["model.onnx", "weights/w.bin"] {
        fs::copy(external_folder().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn packed(path: &Path, golden: &[PathBuf]) -> Vec<u8> {
    let mut tar = Vec::new();
    Contents::of(path, golden).unwrap().write(&mut tar).unwrap();
    tar
}

fn refusal<T: std::fmt::Debug>(result: Result<T, BundleError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_model_with_its_data_in_another_file_is_served_from_its_folder() {
    let signature = runtime().inspect(&external_folder()).unwrap();
    assert_eq!(signature.inputs[0].shape, [-1, 2]);
    assert!(signature.batchable);
    let files = ModelFiles::at(&external_folder()).unwrap();
    assert_eq!(files.external, [Path::new("weights/w.bin")]);
    let model_bytes = fs::metadata(model_file("external/model")).unwrap().len();
    assert_eq!(files.size_bytes().unwrap(), model_bytes + 16);
}

#[test]
fn a_folder_survives_being_packed_and_unpacked() {
    let source = copied_folder();
    fs::create_dir(source.path().join("golden")).unwrap();
    fs::write(source.path().join("golden/one.json"), "{}").unwrap();
    fs::write(source.path().join("README.md"), "stays out").unwrap();
    let bundle = source.path().join("bundle.tar");
    fs::write(&bundle, packed(source.path(), &[])).unwrap();
    assert!(is_bundle(&bundle).unwrap());
    assert!(!is_bundle(&source.path().join("model.onnx")).unwrap());

    let target = tempfile::tempdir().unwrap();
    unpack(&bundle, target.path()).unwrap();
    let files = ModelFiles::at(target.path()).unwrap();
    assert_eq!(files.model, target.path().join("model.onnx"));
    assert_eq!(files.golden, [target.path().join("golden/one.json")]);
    assert_eq!(
        fs::read(target.path().join("weights/w.bin")).unwrap(),
        fs::read(external_folder().join("weights/w.bin")).unwrap()
    );
    assert!(!target.path().join("README.md").exists());
    fs::remove_dir_all(target.path().join("golden")).unwrap();
    runtime().inspect(target.path()).unwrap();
}

#[test]
fn equal_contents_make_equal_tars_whatever_their_times_and_names() {
    let first = copied_folder();
    let second = copied_folder();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1_000);
    File::open(second.path().join("model.onnx")).unwrap().set_modified(later).unwrap();
    fs::rename(second.path().join("model.onnx"), second.path().join("net.onnx")).unwrap();
    assert_eq!(packed(first.path(), &[]), packed(second.path(), &[]));
    // A file with its data beside it is the same as their folder.
    assert_eq!(packed(&second.path().join("net.onnx"), &[]), packed(first.path(), &[]));
}

#[test]
fn a_file_that_is_whole_in_itself_stays_a_file_unless_samples_come_along() {
    let sample = tempfile::NamedTempFile::new().unwrap();
    let alone = Contents::of(&model_file("matmul"), &[]).unwrap();
    assert_eq!(alone.single_file(), Some(model_file("matmul").as_path()));
    let with_sample = Contents::of(&model_file("matmul"), &[sample.path().to_owned()]).unwrap();
    assert_eq!(with_sample.single_file(), None);
}

#[test]
fn data_that_points_out_of_the_folder_is_refused_before_the_runtime_reads_it() {
    for (name, location, reason) in [
        ("external_parent", "../../etc/passwd", "which leaves its folder by '..'"),
        ("external_absolute", "/etc/passwd", "which is an absolute path"),
    ] {
        let error = runtime().inspect(&model_file(name)).unwrap_err().to_string();
        assert_eq!(error, format!("tensor 'w' keeps its data in the file '{location}', {reason}"));
        // On the sender's side as well.
        assert_eq!(refusal(Contents::of(&model_file(name), &[])), error);
    }
    let hidden = runtime().inspect(&model_file("external_in_branch")).unwrap_err().to_string();
    assert_eq!(hidden, "tensor 'hidden' keeps its data in the file '/etc/passwd', which is an absolute path");
}

#[test]
fn data_behind_a_link_that_leads_out_is_refused() {
    let folder = copied_folder();
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::remove_file(folder.path().join("weights/w.bin")).unwrap();
    symlink(elsewhere.path(), folder.path().join("weights/w.bin")).unwrap();
    assert_eq!(
        refusal(ModelFiles::at(folder.path())),
        "tensor 'w' keeps its data in the file 'weights/w.bin', which is a link to somewhere outside the folder of the model"
    );
}

#[test]
fn data_that_is_missing_is_named() {
    let folder = copied_folder();
    fs::remove_file(folder.path().join("weights/w.bin")).unwrap();
    assert_eq!(
        refusal(Contents::of(&folder.path().join("model.onnx"), &[])),
        "tensor 'w' keeps its data in the file 'weights/w.bin', which is not in the folder of the model: 'weights/w.bin' is missing"
    );
    let alone = runtime().inspect(&model_file("external/model")).unwrap_err().to_string();
    assert_eq!(
        alone,
        "tensor 'w' keeps its data in the file 'weights/w.bin', which did not come with it; push the folder that holds both, or the file where the other lies beside it"
    );
}

#[test]
fn which_file_is_the_model_must_be_clear() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refusal(ModelFiles::at(folder.path())), "the folder has no model.onnx");
    for name in ["a.onnx", "b.onnx"] {
        fs::copy(model_file("matmul"), folder.path().join(name)).unwrap();
    }
    assert_eq!(
        refusal(ModelFiles::at(folder.path())),
        "the folder has 2 files that end in .onnx; call the model model.onnx"
    );
}

#[test]
fn files_that_are_no_onnx_are_refused_and_say_where() {
    let error = refusal(external_data(&model_file("truncated")));
    assert!(
        error.starts_with("the file is no ONNX model: a field is longer than what it is in at byte "),
        "{error}"
    );
    let error = refusal(external_data(&model_file("not_onnx")));
    assert!(error.starts_with("the file is no ONNX model: "), "{error}");
}

#[tokio::test]
async fn an_artefact_is_unpacked_once_and_again_if_its_folder_is_gone() {
    let data = tempfile::tempdir().unwrap();
    let artefacts = ArtefactStore::open(data.path(), 1 << 20).unwrap();
    let keep = async |bytes: Vec<u8>| {
        let mut upload = artefacts.upload().await.unwrap();
        upload.write(bytes.into()).await.unwrap();
        upload.keep(None).await.unwrap().0
    };
    let digest = keep(packed(&external_folder(), &[])).await;
    let settled = || settle(&artefacts, digest, artefacts.path(digest).unwrap()).unwrap();
    let place = settled();
    assert_eq!(place, artefacts.unpacked_place(digest));
    let unpacked_at = place.metadata().unwrap().modified().unwrap();
    assert_eq!(settled(), place);
    assert_eq!(place.metadata().unwrap().modified().unwrap(), unpacked_at);

    fs::remove_dir_all(&place).unwrap();
    assert_eq!(settled(), place);
    runtime().inspect(&place).unwrap();
    let scratch = data.path().join("artefacts/incoming");
    assert_eq!(fs::read_dir(scratch).unwrap().count(), 0);

    let whole_in_itself = keep(fs::read(model_file("matmul")).unwrap()).await;
    let file = artefacts.path(whole_in_itself).unwrap();
    assert_eq!(settle(&artefacts, whole_in_itself, file.clone()).unwrap(), file);
}

/// A tar of one member, made without the checks of the library.
fn hostile(name: &str, kind: tar::EntryType, link: Option<&str>) -> tempfile::NamedTempFile {
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(0);
    if let Some(link) = link {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, std::io::empty()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), builder.into_inner().unwrap()).unwrap();
    file
}

#[test]
fn members_that_lead_out_or_are_no_files_are_refused_by_name() {
    use tar::EntryType;
    let cases = [
        (
            "../evil",
            EntryType::Regular,
            None,
            "'../evil' may not be in a bundle: it leaves its folder by '..'",
        ),
        (
            "a/../../evil",
            EntryType::Regular,
            None,
            "'a/../../evil' may not be in a bundle: it leaves its folder by '..'",
        ),
        ("/etc/evil", EntryType::Regular, None, "'/etc/evil' may not be in a bundle: it is an absolute path"),
        ("w.bin", EntryType::Symlink, Some("/etc/passwd"), "'w.bin' may not be in a bundle: it is a link"),
        ("w.bin", EntryType::Link, Some("model.onnx"), "'w.bin' may not be in a bundle: it is a link"),
        ("tty", EntryType::Char, None, "'tty' may not be in a bundle: it is a device"),
        ("sda", EntryType::Block, None, "'sda' may not be in a bundle: it is a device"),
        ("pipe", EntryType::Fifo, None, "'pipe' may not be in a bundle: it is a pipe"),
        ("holes", EntryType::Continuous, None, "'holes' may not be in a bundle: it is no plain file"),
    ];
    for (name, kind, link, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(refusal(unpack(hostile(name, kind, link).path(), folder.path())), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_bundle_that_is_cut_off_or_has_a_member_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = packed(&external_folder(), &[]);
    let bundle = folder.path().join("bundle.tar");
    fs::write(&bundle, &whole[..700]).unwrap();
    let target = tempfile::tempdir().unwrap();
    assert!(unpack(&bundle, target.path()).is_err());

    let twice = [&whole[..whole.len() - 1_024], &whole].concat();
    fs::write(&bundle, twice).unwrap();
    let target = tempfile::tempdir().unwrap();
    assert_eq!(
        refusal(unpack(&bundle, target.path())),
        "'model.onnx' may not be in a bundle: it is there twice"
    );
}

#[test]
fn a_long_name_is_kept_and_an_endless_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.tar");
    let write = |name: &str| {
        let mut builder = tar::Builder::new(File::create(&bundle).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header, name, &b"x"[..]).unwrap();
        builder.finish().unwrap();
    };
    let long = format!("{}/w.bin", "d".repeat(200));
    write(&long);
    let target = tempfile::tempdir().unwrap();
    unpack(&bundle, target.path()).unwrap();
    assert_eq!(fs::read(target.path().join(&long)).unwrap(), b"x");

    write(&"e".repeat(20_000));
    let target = tempfile::tempdir().unwrap();
    assert_eq!(
        refusal(unpack(&bundle, target.path())),
        "'a member' may not be in a bundle: its name takes more than 16384 bytes"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_stands_in_a_file_is_walked_to_an_end(
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        places in proptest::collection::vec((0_usize..400, proptest::num::u8::ANY), 0..8),
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &noise).unwrap();
        let _ = external_data(file.path());
        let mut model = fs::read(model_file("external_in_branch")).unwrap();
        for (place, byte) in places {
            let place = place % model.len();
            model[place] = byte;
        }
        fs::write(file.path(), &model).unwrap();
        let _ = external_data(file.path());
    }

    #[test]
    fn a_tar_of_whatever_bytes_stays_in_its_folder(
        places in proptest::collection::vec((0_usize..512, proptest::num::u8::ANY), 0..8),
    ) {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut bytes = packed(&external_folder(), &[]);
        for (place, byte) in places {
            bytes[place] = byte;
        }
        let bundle = tempfile::NamedTempFile::new().unwrap();
        fs::write(bundle.path(), &bytes).unwrap();
        let _ = unpack(bundle.path(), &folder);
        proptest::prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
