//! One binary for all integration tests; a file a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api_contract;
mod archive;
mod config;
mod keep_current;
mod mysql;
mod outage;
mod sandbox;
mod support;
mod sync;
mod tidy;
