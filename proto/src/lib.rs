//! The contracts of Starling: types and services generated from the `.proto`
//! files, and nothing else.
//!
//! Tensor bytes are [`bytes::Bytes`], so raw contents are not copied on decode.

// Generated code documents itself in the .proto files.
#![allow(missing_docs, unreachable_pub, clippy::all, rust_2018_idioms)]

pub mod codec;
mod enum_words;

/// The Open Inference Protocol v2 with Triton's extensions.
pub mod inference {
    tonic::include_proto!("inference");
}

/// Starling's own packages, nested as protobuf nests them.
mod starling {
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("starling.admin.v1");
        }
    }
    pub mod feedback {
        pub mod v1 {
            tonic::include_proto!("starling.feedback.v1");
        }
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("starling.peer.v1");
        }
    }
}

/// What people ask of a cluster.
pub use starling::admin::v1 as admin;
/// What became known later about predictions.
pub use starling::feedback::v1 as feedback;
/// What nodes say to each other.
pub use starling::peer::v1 as peer;

/// The encoded `FileDescriptorSet` of all contracts, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
