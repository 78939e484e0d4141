//! Arguments, runtime, exit code; nothing else. All of it stands in `cli`.

use std::process::ExitCode;

/// At 10,000 shops 60 MiB less than with glibc's, whose arenas keep what they once held, and a fifth less CPU a
/// document (measured with `scripts/bench`), for 24 MiB more while idle. Not under malloc's own names: a clock that
/// is preloaded asks malloc for memory before it works, and hangs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    waybill::cli::run()
}
