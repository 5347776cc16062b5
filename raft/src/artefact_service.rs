//! The server of service Artefacts: says what is here, copies on request, and
//! streams ranges to peers.

use std::pin::Pin;

use futures::Stream;
use starling_proto::peer::artefacts_server::Artefacts;
use starling_proto::peer::{
    FetchRequest, FetchResponse, HoldsRequest, HoldsResponse, ReplicateRequest, ReplicateResponse,
};
use tonic::{Request, Response, Status};

use crate::artefacts::ArtefactStore;

/// The service.
pub struct ArtefactService {
    store: ArtefactStore,
}

impl ArtefactService {
    /// Serves what `store` has.
    pub fn new(store: ArtefactStore) -> Self {
        Self { store }
    }
}

#[tonic::async_trait]
impl Artefacts for ArtefactService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn holds(&self, request: Request<HoldsRequest>) -> Result<Response<HoldsResponse>, Status> {
        let _ = (request, &self.store);
        Err(Status::unimplemented("holds"))
    }

    async fn replicate(
        &self,
        request: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        let _ = request;
        Err(Status::unimplemented("replicate"))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let _ = request;
        Err(Status::unimplemented("fetch"))
    }
}
