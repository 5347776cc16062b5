//! The data plane: one current-thread runtime per core, and an acceptor that
//! deals connections out.
