//! Memory and open files of a process, as the kernel counts them.

use std::fs;

/// Peak memory so far, in MiB.
pub(crate) fn peak_mib(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") >> 10
}

/// Current memory, in KiB.
pub(crate) fn now_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// Open files, sockets among them.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
