//! One binary for all integration tests; a file a feature.

mod sandbox;
