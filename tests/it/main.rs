//! One binary for all integration tests; a file a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api_contract;
mod config;
mod mysql;
mod sandbox;
mod support;
mod tidy;
