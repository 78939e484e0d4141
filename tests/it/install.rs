//! `scripts/install`: what it checks before it builds, and what it installs. The build and the binary are stand-ins.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn script(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script from `folder`; a build writes the file `built` there.
fn install(folder: &Path, prefix: &str) -> Output {
    script(&folder.join("path/cargo"), &format!("touch {}", folder.join("built").display()));
    script(
        &folder.join("target/release/waybill"),
        r#"if [ "$2" = man ]; then mkdir -p "$3" && echo page >"$3/waybill.1"; else echo completion; fi"#,
    );
    let path = format!("{}:{}", folder.join("path").display(), std::env::var("PATH").unwrap());
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install"))
        .arg(prefix)
        .current_dir(folder)
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()
        .unwrap()
}

#[test]
fn a_prefix_that_cannot_be_written_is_refused_before_the_build() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    // A file in place of a folder: root cannot write there either.
    let refused = install(folder.path(), "file/below");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("/file/below"), "{said}");
    assert!(!folder.path().join("built").exists(), "{said}");
    let refused = install(folder.path(), "with a space");
    assert!(!refused.status.success() && !folder.path().join("built").exists(), "{refused:?}");
}

#[test]
fn the_installed_unit_starts_the_binary_of_the_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let done = install(folder.path(), "opt");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && folder.path().join("built").exists(), "{said}");
    // A relative prefix is below the caller's folder.
    let prefix = folder.path().canonicalize().unwrap().join("opt");
    let unit = fs::read_to_string(prefix.join("share/doc/waybill/waybill.service")).unwrap();
    let binary = prefix.join("bin/waybill");
    assert!(unit.contains(&format!(" {} serve ", binary.display())) && !unit.contains("/usr/local"), "{unit}");
    assert!(binary.exists() && prefix.join("share/man/man1/waybill.1").exists());
    assert!(prefix.join("share/bash-completion/completions/waybill").exists());
    let hints: Vec<&str> = said.lines().filter(|line| line.contains("/etc/")).collect();
    assert!(!hints.is_empty() && hints.iter().all(|line| line.contains("sudo")), "{said}");
}

/// systemd 247 knows credentials and their variable, but not the specifier `%d` of 251.
#[test]
fn the_unit_needs_no_specifier_of_newer_versions_of_systemd() {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/waybill.service")).unwrap();
    let settings = unit.lines().filter(|line| !line.starts_with('#'));
    assert!(settings.clone().any(|line| line.contains("${CREDENTIALS_DIRECTORY}/waybill.toml")));
    assert!(settings.clone().all(|line| !line.contains('%')), "{unit}");
}
