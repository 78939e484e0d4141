//! Files that only their owner can read: the master key, the first admin key. Writes are atomic and durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Writes a line into a new file with mode 0600 and syncs it; replaces an existing file.
///
/// # Errors
/// I/O errors.
pub(super) fn write(file: &Path, line: &str) -> io::Result<()> {
    // An existing file may be readable by others, or open.
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    made.write_all(line.as_bytes())?;
    made.write_all(b"\n")?;
    made.sync_all()
}

/// Replaces the content of a file atomically.
///
/// # Errors
/// I/O errors.
pub(crate) fn replace(file: &Path, line: &str) -> io::Result<()> {
    let fresh = beside(file, ".new");
    write(&fresh, line)?;
    fs::rename(&fresh, file)?;
    sync_folder(file)
}

/// Syncs the folder of a file, so that its name is durable.
///
/// # Errors
/// I/O errors.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder(file))?.sync_all()
}

/// The folder of a file.
pub(super) fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Appends a suffix to the file name: `data` becomes `data.admin-key`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}
