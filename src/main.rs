//! Arguments, runtime, exit code; nothing else. All of it stands in `cli`.

use std::process::ExitCode;

/// Fewer page faults under the many small, short-lived bodies of a sync.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waybill::cli::run()
}
