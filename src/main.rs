//! Arguments, runtime, exit code; nothing else. All of it stands in `cli`.

use std::process::ExitCode;

/// A third less CPU a document than with glibc's (measured with `scripts/bench`), whose fast path ends at
/// a kilobyte: most of what passes here is larger. It takes malloc's own names, so that a large block that
/// is asked for and then cleared (sled does that) stays untouched until it is used.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    waybill::cli::run()
}
