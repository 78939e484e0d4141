//! Memory and open files of a process, as the kernel counts them.

use std::fs;

/// Peak memory so far, in MiB.
pub(crate) fn peak_mib(pid: u32) -> u64 {
    status_number(pid, "VmHWM:") >> 10
}

/// Current memory, in KiB.
pub(crate) fn now_kib(pid: u32) -> u64 {
    status_number(pid, "VmRSS:")
}

/// Open files, sockets among them. Only root may count those of a process that cannot be traced; others get how many
/// there is room for.
pub(crate) fn open_files(pid: u32) -> usize {
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(files) => files.count(),
        Err(_) => usize::try_from(status_number(pid, "FDSize:")).unwrap(),
    }
}

fn status_number(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
