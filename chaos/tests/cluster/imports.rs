//! A Triton model repository on disk becomes models that answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use starling_chaos::cluster::{Cluster, ClusterConfig};
use starling_chaos::process::run_to_end;
use starling_chaos::site::Site;

use crate::{my_turn, site};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Two models: digits in two versions, and a matrix that lies beside its model.
fn write_repository(site: &Site, root: &Path) -> Result<()> {
    let copy = |from: PathBuf, to: &str| -> Result<()> {
        let to = root.join(to);
        std::fs::create_dir_all(to.parent().context("a file in a folder")?)?;
        std::fs::copy(&from, to).with_context(|| format!("{} to {}", from.display(), root.display()))?;
        Ok(())
    };
    copy(site.digits_v1(), "digits/1/model.onnx")?;
    copy(site.digits_v2(), "digits/2/model.onnx")?;
    let config = "name: \"digits\"\nbackend: \"onnxruntime\"\nmax_batch_size: 8\nversion_policy { all {} }\n\
                  instance_group [ { count: 2 kind: KIND_CPU } ]\n\
                  dynamic_batching {\n  preferred_batch_size: [ 4, 8 ]\n  max_queue_delay_microseconds: 500\n}\n";
    std::fs::write(root.join("digits/config.pbtxt"), config)?;
    let external = site.models.join("../testdata/external");
    copy(external.join("model.onnx"), "matrix/7/model.onnx")?;
    copy(external.join("weights/w.bin"), "matrix/7/weights/w.bin")
}

#[tokio::test]
async fn a_triton_repository_is_imported_and_answers_as_it_did() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    let root = tempfile::tempdir()?;
    write_repository(&site, root.path())?;
    let server = cluster.nodes()[0].grpc().to_string();
    let folder = root.path().to_string_lossy().into_owned();
    let run = async |args: &[&str]| {
        let args: Vec<&str> = ["--server", &server].into_iter().chain(args.iter().copied()).collect();
        run_to_end(&site, &args, COMMAND_LIMIT).await
    };
    let admin = cluster.admin()?;

    let (code, text) = run(&["model", "import-triton", &folder, "--dry-run"]).await?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 models with 3 versions would be imported"), "{text}");
    assert!(admin.versions("").await?.is_empty(), "a dry run changes nothing");

    let (code, text) = run(&["model", "import-triton", &folder]).await?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 models with 3 versions imported, 0 not, 1 warnings"), "{text}");
    let warning = "digits/config.pbtxt:7: dynamic_batching.preferred_batch_size: ";
    assert!(text.contains(warning), "{text}");
    let digits = admin.versions("digits").await?;
    let labels: Vec<&str> = digits.iter().map(|version| version.label.as_str()).collect();
    assert_eq!(labels, ["v1", "v2"]);
    let settings = digits[1].settings.context("settings")?;
    let batching = settings.batching.context("batching")?;
    assert_eq!((batching.max_batch, batching.max_queue_delay_us, settings.instances), (8, 500, 2));
    let routes = admin.routes("digits").await?;
    assert_eq!((routes[0].weights.len(), routes[0].weights[0].version.as_str()), (1, "v2"));

    let input = root.path().join("input.json");
    std::fs::write(&input, "[[1, 1], [2, 0]]")?;
    let input = input.to_string_lossy().into_owned();
    let (code, text) = run(&["predict", "matrix", "--input", &input]).await?;
    assert_eq!(code, Some(0), "{text}");
    // [[1, 1], [2, 0]] times [[1, 2], [3, 4]].
    let numbers: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(numbers.contains("[[4.0,6.0],[2.0,4.0]]"), "{text}");

    // A second import finds everything there; what cannot be served is named and fails it.
    std::fs::create_dir_all(root.path().join("torch/1"))?;
    std::fs::write(root.path().join("torch/config.pbtxt"), "backend: \"pytorch\"\n")?;
    let (code, text) = run(&["model", "import-triton", &folder]).await?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("v2 was there already"), "{text}");
    assert!(
        text.contains("skipped: torch: config.pbtxt line 1: backend: 'pytorch' is another runtime"),
        "{text}"
    );
    assert!(text.contains("2 models with 3 versions imported, 1 not"), "{text}");
    Ok(())
}
