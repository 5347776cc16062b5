//! Files that are no model are refused at the push, and nothing is registered.

use anyhow::Result;
use bytes::Bytes;
use starling_chaos::admin::Admin;
use starling_chaos::cluster::{Cluster, ClusterConfig};
use tonic::{Code, Status};

use crate::{my_turn, site};

async fn refusal(admin: &Admin, file: Bytes) -> Status {
    let error = admin.push_bytes("broken", "v1", file).await.expect_err("it was accepted");
    error.downcast::<Status>().expect("a refusal by the node")
}

#[tokio::test]
async fn a_file_that_is_no_whole_onnx_model_is_refused_with_the_runtimes_reason() -> Result<()> {
    let _turn = my_turn().await;
    let site = site()?;
    let mut cluster = Cluster::start(&site, ClusterConfig::patient(), 1).await?;
    let admin = cluster.admin()?;
    let whole = Bytes::from(std::fs::read(site.digits_v2())?);

    for (what, file) in
        [("truncated", whole.slice(..whole.len() / 2)), ("text", Bytes::from_static(b"not a model"))]
    {
        let status = refusal(&admin, file).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert!(status.message().len() > 20, "{what}: the reason is missing in {:?}", status.message());
    }
    // The same length, another operator: ONNX Runtime knows no `Xoftmax`.
    let unknown: Vec<u8> = whole.to_vec();
    let position = unknown.windows(7).position(|word| word == b"Softmax").expect("the model has a Softmax");
    let mut unknown = unknown;
    unknown[position] = b'X';
    let status = refusal(&admin, Bytes::from(unknown)).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("Xoftmax"), "{:?}", status.message());

    let names = admin.versions("").await?;
    assert!(names.is_empty(), "{names:?}");
    admin.push_bytes("whole", "v1", whole).await?;
    Ok(())
}
