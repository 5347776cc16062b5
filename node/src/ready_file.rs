//! `--ready-file`: tells whoever started this node where it listens, and when it can answer.
