//! One binary for all integration tests; a file a feature.

mod mysql;
mod support;
