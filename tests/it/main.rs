//! One binary for all integration tests; a file a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod api_contract;
mod command_line;
mod config;
mod fuzz;
mod kill;
mod mysql;
mod prism;
mod quiet_stop;
mod sandbox;
mod support;
mod tidy;
