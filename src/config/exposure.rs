//! Whether others can read a file that holds a secret, and closing one to them.
//!
//! The rule is PostgreSQL's for private keys: a file of this user must be readable by this user alone; one of root may be
//! readable by its group, as credentials of systemd and secrets of Kubernetes are.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::geteuid;

/// The user id of root.
const ROOT: u32 = 0;
/// All bits of group and others.
const FOREIGN: u32 = 0o077;
/// What the group may do with a file of root.
const GROUP_READS: u32 = 0o040;

/// Who can read the file, and the command that repairs it. None: it is private, or no regular file.
pub(crate) fn exposure(file: &Path) -> Option<String> {
    let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    let (owner, user) = (found.uid(), geteuid().as_raw());
    if !is_exposed(found.mode(), owner, user) {
        return None;
    }
    let shown = file.display();
    let sudo = if owner == user || user == ROOT { "" } else { "sudo " };
    let wanted = if owner == ROOT && user != ROOT { 0o640 } else { 0o600 };
    Some(format!(
        "other users can access {shown} (mode {:04o}); run: {sudo}chmod {wanted:o} {shown}",
        found.mode() & 0o7777
    ))
}

/// Whether this user owns the file, and so may close it.
pub(super) fn is_own(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.uid() == geteuid().as_raw())
}

/// Takes the rights of all other users; returns the mode before.
pub(super) fn close(file: &Path) -> io::Result<u32> {
    let mode = fs::metadata(file)?.mode() & 0o7777;
    fs::set_permissions(file, Permissions::from_mode(mode & !FOREIGN))?;
    Ok(mode)
}

fn is_exposed(mode: u32, owner: u32, user: u32) -> bool {
    let allowed = if owner == ROOT && user != ROOT { GROUP_READS } else { 0 };
    mode & FOREIGN & !allowed != 0
}

#[cfg(test)]
mod tests {
    use super::is_exposed;

    #[test]
    fn a_secret_is_for_its_user_alone_and_one_of_root_for_a_group_at_most() {
        for (mode, owner, user, expected) in [
            (0o100_600, 1000, 1000, false),
            (0o100_400, 1000, 1000, false),
            (0o100_640, 1000, 1000, true),
            (0o100_644, 1000, 1000, true),
            (0o100_604, 1000, 1000, true),
            (0o100_620, 1000, 1000, true),
            (0o100_440, 0, 1000, false),
            (0o100_640, 0, 1000, false),
            (0o100_660, 0, 1000, true),
            (0o100_644, 0, 1000, true),
            (0o100_640, 0, 0, true),
            (0o100_600, 0, 0, false),
            (0o100_644, 999, 1000, true),
        ] {
            assert_eq!(is_exposed(mode, owner, user), expected, "{mode:o} of {owner} for {user}");
        }
    }
}
