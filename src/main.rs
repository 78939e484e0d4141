//! The entry point and the allocator; everything else is in `cli`.

use std::process::ExitCode;

/// jemalloc. At 10,000 shops it takes 60 MiB less than glibc, whose arenas keep freed memory, and a fifth less CPU per
/// document (measured with `scripts/bench`), for 24 MiB more while idle. It does not replace malloc itself: a preloaded
/// clock library calls malloc before it is initialized, and would hang.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    waybill::cli::run()
}
