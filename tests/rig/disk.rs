//! A file system in a file: it can be full, and it can lose its power.
//!
//! Loop-mounted ext4. It is unmounted on drop, also after a failure; and the rig runs in its own mount namespace, so
//! that even kill -9 of the rig leaves no mount behind.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system.
pub(crate) struct Disk {
    dir: TempDir,
    /// Seconds between commits of its journal; the longer, the more a power cut loses.
    commit: u32,
}

impl Disk {
    /// Creates a fresh one. Fails where loop mounts are not allowed.
    pub(crate) fn new(mebibytes: u64, commit: u32) -> Result<Disk, String> {
        let disk = Disk { dir: folder(), commit };
        let image = File::create(disk.image()).unwrap();
        image.set_len(mebibytes << 20).unwrap();
        let image = disk.image().display().to_string();
        // No reserved blocks: full is full for root too. No lazy initialisation: the kernel would write it later.
        let features = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", features, &image])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        fs::create_dir(self.path()).unwrap();
        let options = format!("loop,commit={}", self.commit);
        let (image, path) = (self.image().display().to_string(), self.path().display().to_string());
        run("mount", &["-o", &options, &image, &path])
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// The mount point.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// The disk as after a power cut at this moment: only what reached the device.
    pub(crate) fn cut(&self) -> Disk {
        let copy = Disk { dir: folder(), commit: self.commit };
        fs::copy(self.image(), copy.image()).unwrap();
        copy.mount().unwrap();
        copy
    }

    /// Leaves this many bytes free, by writing a file of zeros.
    pub(crate) fn fill(&self) {
        let path = self.path().join("filler");
        let filled = Command::new("dd")
            .args(["if=/dev/zero", "bs=64k", "status=none"])
            .arg(format!("of={}", path.display()))
            .output()
            .unwrap();
        assert!(!filled.status.success(), "dd ends because the disk is full");
    }

    /// Frees the space that [`Disk::fill`] took.
    pub(crate) fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if Path::new("/proc/self/mounts").exists() && !is_mounted(&self.path()) {
            return;
        }
        let path = self.path().display().to_string();
        if run("umount", &[&path]).is_err() {
            // A process still holds a file: it is unmounted when that ends.
            drop(run("umount", &["-l", &path]));
        }
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("waybill-rig-disk-").tempdir().unwrap()
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

/// Runs a command of the system; an error has its text.
pub(crate) fn run(command: &str, arguments: &[&str]) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let ran = Command::new(command).args(arguments).env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command}: {error}")),
    }
}
