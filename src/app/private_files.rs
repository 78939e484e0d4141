//! Closes the data directory to other users: it holds sealed secrets, and in the archive all documents.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// All bits of group and others.
const FOREIGN: u32 = 0o077;

/// Takes the rights of other users from a data directory and everything in it, and logs that it did. One that does not
/// exist yet is created private.
///
/// # Errors
/// This user may not change that.
pub(super) fn close(data_dir: &Path) -> anyhow::Result<()> {
    let found = match fs::metadata(data_dir) {
        Ok(found) if found.is_dir() => found,
        // The store says what is wrong with it.
        _ => return Ok(()),
    };
    let remedy = || {
        let shown = data_dir.display();
        format!(
            "other users can access {shown}, and this user may not change that; as its owner run: chmod -R go= {shown}"
        )
    };
    let was_open = close_one(data_dir, &found).with_context(remedy)?;
    let files = close_content(data_dir).with_context(remedy)?;
    let data_dir = data_dir.display();
    if was_open {
        let was = format!("{:04o}", found.permissions().mode() & 0o7777);
        tracing::warn!(%data_dir, was, files, "other users could access the data directory; it is now for this user only");
    } else if files > 0 {
        // As earlier builds left them, in a directory that was closed.
        tracing::info!(%data_dir, files, "the files in the data directory are now for this user only");
    }
    Ok(())
}

/// Closes what is in a folder, at any depth; returns how much of it was open.
fn close_content(folder: &Path) -> io::Result<u64> {
    let mut closed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            // Of a link itself: what it leads to is not ours to change.
            let found = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            if found.is_dir() {
                folders.push(path.clone());
            }
            if (found.is_dir() || found.is_file()) && close_one(&path, &found)? {
                closed += 1;
            }
        }
    }
    Ok(closed)
}

/// Whether it was open.
fn close_one(path: &Path, found: &Metadata) -> io::Result<bool> {
    let mode = found.permissions().mode();
    if mode & FOREIGN == 0 {
        return Ok(false);
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !FOREIGN)) {
        // A running process has just removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        changed => changed.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::close;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_data_directory_is_closed_and_nothing_outside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (data, outside) = (folder.path().join("data"), folder.path().join("outside"));
        assert!(close(&data).is_ok() && !data.exists(), "a check creates nothing");
        fs::create_dir_all(data.join("sled")).unwrap();
        for file in [&outside, &data.join("lock"), &data.join("sled/db")] {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap();
        }
        symlink(&outside, data.join("link")).unwrap();
        for (path, mode) in [(data.join("sled"), 0o755), (data.clone(), 0o777)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        close(&data).unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        let modes = ["data", "data/sled", "data/lock", "data/sled/db", "outside"].map(mode);
        assert_eq!(modes.map(|mode| format!("{mode:o}")), ["700", "700", "600", "600", "666"]);
    }
}
