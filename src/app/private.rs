//! Files that only their owner reads: the master key, the first admin key. Each is on the disk whole, or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes a line into a new file and waits until the disk has it; a file of that name that is there goes.
///
/// # Errors
/// The system's.
pub(super) fn write(file: &Path, line: &str) -> io::Result<()> {
    // Made anew: one that is there may be open to others.
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(line.as_bytes())?;
    made.write_all(b"\n")?;
    made.sync_all()
}

/// Puts a line in the place of what a file holds. A crash leaves the one or the other.
///
/// # Errors
/// The system's.
pub(crate) fn replace(file: &Path, line: &str) -> io::Result<()> {
    let fresh = beside(file, ".new");
    write(&fresh, line)?;
    fs::rename(&fresh, file)?;
    sync_folder(file)
}

/// Waits until the disk has the names in a file's folder.
///
/// # Errors
/// The system's.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder(file))?.sync_all()
}

/// The folder of a file.
pub(super) fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `data` becomes `data.admin-key`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}
