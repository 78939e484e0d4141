//! Arguments, runtime, exit code; nothing else. All of it stands in `cli`.

use std::process::ExitCode;

/// The allocator of musl is slow under threads. glibc's own keeps the process half as large as mimalloc
/// does, at the same cost (measured with `scripts/bench`).
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waybill::cli::run()
}
