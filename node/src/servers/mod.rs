//! What listens: gRPC, REST, metrics, and the layers before them.
