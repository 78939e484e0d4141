//! Start-up hygiene: what the process keeps from others on its machine and in its network, and what it refuses.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::configuration::{load, problems};
use crate::support::program::{Ended, Folder, Serving, says, signal};

/// A user without any rights, for runs of root.
const NOBODY: u32 = 65534;
const DAY: Duration = Duration::from_secs(86_400);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn open_to_others(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Everything below a folder.
fn below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

fn cores(folder: &Path) -> Vec<std::path::PathBuf> {
    let is_core = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("core");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(is_core).collect()
}

/// A shell that lets its program dump core, as a machine without our unit may; as a user without rights if we are root.
fn unguarded(user: Option<u32>) -> Vec<String> {
    let drop_rights = |user: u32| {
        let id = user.to_string();
        ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned).to_vec()
    };
    let mut words = user.map(drop_rights).unwrap_or_default();
    words.extend(["sh", "-c", "ulimit -c unlimited && exec \"$0\" \"$@\""].map(str::to_owned));
    words
}

fn run(words: &[String], more: &[&str], folder: &Path) -> std::process::Output {
    Command::new(&words[0]).args(&words[1..]).args(more).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_aborts_leaves_no_core_and_shows_its_memory_to_no_one() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    let us = fs::metadata(folder.dir.path()).unwrap().uid();
    let user = (us == 0).then_some(NOBODY);
    if let Some(user) = user {
        chown(folder.dir.path(), Some(user), Some(user)).unwrap();
    }
    let shell = unguarded(user);
    let version = run(&shell, &[&folder.command(&[]).get_program().to_string_lossy(), "version"], folder.dir.path());
    if !version.status.success() {
        return eprintln!("SKIPPED: a user without rights cannot run the binary where it is: {version:?}");
    }
    // A program that aborts leaves a core here, else its absence shows nothing.
    run(&shell, &["sh", "-c", "kill -ABRT $$"], folder.dir.path());
    let dumps = cores(folder.dir.path());
    dumps.iter().for_each(|core| fs::remove_file(core).unwrap());
    if dumps.is_empty() {
        eprintln!("this machine writes cores elsewhere: only the process's own settings are checked");
    }
    let master = STANDARD.encode([0x5a; 32]);
    folder.set("WAYBILL_MASTER_KEY", &master);
    folder.run_under(&shell.iter().map(String::as_str).collect::<Vec<_>>());
    let serving = folder.serve();
    let process = format!("/proc/{}", serving.pid());
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    for name in ["environ", "mem", "coredump_filter", "maps"] {
        let file = format!("{process}/{name}");
        assert_eq!(fs::metadata(&file).unwrap().uid(), 0, "{file} belongs to the user of the process");
    }
    // Another process of the same user.
    let read = run(&shell, &["cat", &format!("{process}/environ")], folder.dir.path());
    assert!(!read.status.success() && read.stdout.is_empty(), "the variables can be read");
    signal("ABRT", &serving.pid().to_string());
    assert_eq!(serving.ended(), None, "it ended by the signal");
    assert_eq!(cores(folder.dir.path()), [""; 0].map(std::path::PathBuf::from));
    for path in below(folder.dir.path()).into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&path).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
        assert!(!holds(master.as_bytes()) && !holds(&[0x5a; 32]), "{} holds the master key", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_directory_is_for_its_user_alone_and_an_open_one_is_closed() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    folder.run_under(&["sh", "-c", "umask 000 && exec \"$0\" \"$@\""]);
    let data = folder.path("data");
    let are_private = |what: &str| {
        assert_eq!(mode(&data), 0o700, "{what}");
        let files = below(&data);
        assert!(files.len() > 2, "{files:?}");
        for path in files.iter().chain([&folder.path("data.key"), &folder.path("data.admin-key")]) {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(path), wanted, "{what}: {}", path.display());
        }
    };
    assert_eq!(folder.serve().terminate().0, Some(0));
    are_private("made");
    says(&folder.run(&["keys", "list"]).expect(0).out, &["made at a start"]);
    assert!(!folder.said().contains("other users could access"), "{}", folder.said());
    for (of_folder, of_files) in [(0o777, 0o666), (0o755, 0o644), (0o700, 0o644)] {
        below(&data).iter().for_each(|path| open_to_others(path, if path.is_dir() { of_folder } else { of_files }));
        open_to_others(&data, of_folder);
        let check = folder.run(&["check", "--offline"]);
        if of_folder != 0o700 {
            says(&check.expect(1).out, &["FAIL  data directory: other users can access ", "chmod 700"]);
        }
        assert_eq!(folder.serve().terminate().0, Some(0));
        are_private("closed");
        let expected = match of_folder {
            0o700 => "the files in the data directory are now for this user only".to_owned(),
            _ => format!("was=\"{of_folder:04o}\""),
        };
        says(&folder.said(), &["other users could access the data directory", &expected]);
    }
}

#[test]
fn a_master_key_that_others_can_read_is_refused_by_every_command_that_opens_it() {
    let folder = Folder::bare();
    folder.run(&["keys", "create", "--name", "reader"]).expect(0);
    for open in [0o644, 0o640, 0o604, 0o660] {
        open_to_others(&folder.path("data.key"), open);
        for command in [&["serve"][..], &["keys", "list"], &["shops", "list"], &["sync"], &["state"], &["status"]] {
            let refused: Ended = folder.run(command).expect(1);
            says(&refused.err, &["the master key file", "other users can access data.key", "run: chmod 600 data.key"]);
        }
        says(&folder.run(&["check", "--offline"]).expect(1).out, &["FAIL  master key", "chmod 600 data.key"]);
    }
    open_to_others(&folder.path("data.key"), 0o600);
    folder.run(&["keys", "list"]).expect(0);
}

#[test]
fn a_configuration_with_a_password_is_closed_to_others_and_that_is_said() {
    let mut folder = Folder::bare();
    let with = |password: &str| {
        format!("data_dir = \"data\"\n[mysql]\nurl = \"mysql://waybill{password}@127.0.0.1:1/waybill\"\n")
    };
    folder.write("waybill.toml", &with(":canary-password"));
    for open in [0o644, 0o640] {
        open_to_others(&folder.path("waybill.toml"), open);
        // A check changes nothing.
        let found = folder.run(&["check", "--offline"]);
        says(&found.out, &["WARN  waybill.toml:3: contains a password", "run: chmod 600 waybill.toml"]);
        assert_eq!(mode(&folder.path("waybill.toml")), open);
        let closed = folder.run(&["keys", "list"]).expect(0);
        says(&closed.err, &[&format!("password in waybill.toml (mode {open:04o})"), "now for this user only"]);
        assert_eq!(mode(&folder.path("waybill.toml")), 0o600);
        assert!(!folder.run(&["keys", "list"]).expect(0).err.contains("waybill.toml"), "it is said once");
        assert!(!(found.out + &closed.err).contains("canary"));
    }
    // Without a password, or with it in a variable, the file is no secret.
    open_to_others(&folder.path("waybill.toml"), 0o644);
    folder.write("waybill.toml", &with(""));
    folder.run(&["keys", "list"]).expect(0);
    assert_eq!(mode(&folder.path("waybill.toml")), 0o644);
    folder.set("WAYBILL_MYSQL_URL", "mysql://waybill:canary-password@127.0.0.1:1/waybill");
    folder.run(&["keys", "list"]).expect(0);
    assert_eq!(mode(&folder.path("waybill.toml")), 0o644);
}

#[test]
fn weak_admin_keys_are_refused_with_what_to_do() {
    let mut folder = Folder::bare();
    for weak in ["password1234", "short-but-random-8Qm2Zr7Xw4Lp9T", "password1234password1234password1234"] {
        folder.set("WAYBILL_ADMIN_KEY", weak);
        for command in [&["serve"][..], &["keys", "list"]] {
            let refused = folder.run(command).expect(2);
            says(&refused.err, &["WAYBILL_ADMIN_KEY: ", "openssl rand -base64 32", "waybill keys create"]);
            assert!(!refused.err.contains(weak), "{}", refused.err);
        }
    }
    assert!(!folder.path("data").exists());
}

#[test]
fn a_database_on_another_machine_needs_encryption_or_the_operators_word() {
    let mysql = |url: &str, more: &str| problems(&format!("[mysql]\nurl = \"mysql://w:geheim@{url}\"\n{more}"));
    for here in ["127.0.0.1/w", "127.0.0.1:3306/w", "localhost/w", "[::1]:3306/w", "db/w?socket=%2Frun%2Fmysqld.sock"] {
        assert_eq!(mysql(here, ""), [""; 0], "{here}");
    }
    for away in ["10.0.0.7/w", "db/w", "db.example.com:3306/w", "db/w?require_ssl=false", "db/w?verify_ca=true"] {
        let found = mysql(away, "");
        assert_eq!(found.len(), 1, "{away}: {found:?}");
        let remedies = ["?require_ssl=true", "mysql.ca_file", "mysql.allow_plaintext = true"];
        says(&found[0], &[&["waybill.toml:2: mysql.url: ", "another machine", "unencrypted"][..], &remedies].concat());
        assert!(!found[0].contains("geheim"), "{found:?}");
        assert_eq!(mysql(away, "allow_plaintext = true\n"), [""; 0], "{away}");
    }
    for safe in ["db/w?require_ssl=true", "db/w?require_ssl=true&verify_ca=true&verify_identity=true"] {
        assert_eq!(mysql(safe, ""), [""; 0], "{safe}");
    }
    assert_eq!(mysql("db/w", "ca_file = \"waybill.toml\"\n").len(), 0, "a file of authorities encrypts");
    for (blind, name) in [
        ("db/w?require_ssl=true&verify_ca=false", "verify_ca=false"),
        ("db/w?require_ssl=true&verify_identity=false", "verify_identity=false"),
    ] {
        for more in ["", "allow_plaintext = true\n"] {
            let found = mysql(blind, more);
            assert_eq!(found.len(), 1, "{blind}: {found:?}");
            says(&found[0], &[name, "pose as the database", "mysql.ca_file", "mysql.allow_unverified = true"]);
        }
        assert_eq!(mysql(blind, "allow_unverified = true\n"), [""; 0], "{blind}");
    }
    let variable = ("WAYBILL_MYSQL_URL", "mysql://w:geheim@db/w");
    says(&load("", &[variable]).unwrap_err()[0], &["WAYBILL_MYSQL_URL: ", "mysql.allow_plaintext = true"]);
    load("", &[variable, ("WAYBILL_MYSQL_ALLOW_PLAINTEXT", "true")]).unwrap();
}

#[test]
fn proxies_are_addresses_and_networks() {
    let config = load("[http]\ntrusted_proxies = [\"127.0.0.1\", \"10.1.2.3/8\", \"2001:db8::/32\"]\n", &[]).unwrap();
    let shown: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]);
    load("", &[("WAYBILL_HTTP_TRUSTED_PROXIES", "127.0.0.1, ::1")]).unwrap();
    for (wrong, why) in [
        ("localhost", "`localhost` is neither an address nor a network; write it like \"127.0.0.1\" or \"10.0.0.0/8\""),
        ("127.0.0.1:80", "neither an address nor a network"),
        ("10.0.0.0/33", "neither an address nor a network"),
        ("0.0.0.0/0", "would let every client choose its address"),
        ("::/0", "would let every client choose its address"),
    ] {
        let found = problems(&format!("[http]\ntrusted_proxies = [\"10.0.0.1\", \"{wrong}\"]\n"));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        says(&found[0], &["waybill.toml:2: http.trusted_proxies: ", why]);
    }
}

#[test]
fn names_with_characters_that_cannot_be_seen_are_refused_by_commands() {
    let folder = Folder::bare();
    let refused = folder.run(&["keys", "create", "--name", "b\u{200b}i"]).expect(2);
    says(&refused.err, &["--name contains U+200B at character 2", "remove it"]);
    let add = ["shops", "add", "--name", "Shop\u{202e}", "--client-id", "c"];
    says(&folder.feed(&add, "s").expect(2).err, &["--name contains U+202E at character 5"]);
}

/// A key's answer to a request that needs an admin key.
async fn administers(serving: &Serving, key: &str) -> bool {
    let request = reqwest::Client::new().get(format!("{}/api/v1/keys", serving.base)).bearer_auth(key);
    request.send().await.unwrap().status() == 200
}

fn date_back(file: &Path, at: SystemTime) {
    File::options().write(true).open(file).unwrap().set_modified(at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_first_admin_key_goes_when_it_is_not_needed_any_more() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = Folder::bare();
    let file = folder.path("data.admin-key");
    assert_eq!(folder.serve().terminate().0, Some(0));
    says(&folder.said(), &["it is in ", "data.admin-key", "this file is removed once"]);
    let key = fs::read_to_string(&file).unwrap().trim().to_owned();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    // No one has used the key yet, so no one may know it.
    date_back(&file, written - 30 * DAY);
    let serving = folder.serve();
    assert!(file.exists() && administers(&serving, &key).await);
    assert_eq!(serving.terminate().0, Some(0));
    date_back(&file, written - DAY / 2);
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert!(file.exists(), "its key is in use for less than a day");
    date_back(&file, written - 2 * DAY);
    let serving = folder.serve();
    assert!(!file.exists() && administers(&serving, &key).await, "the file is gone, and the key stays");
    says(&folder.said(), &["removed the file with the admin key of a start", "its key is in use for a day"]);
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_first_admin_key_goes_when_there_is_another_one() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    let file = folder.path("data.admin-key");
    assert_eq!(folder.serve().terminate().0, Some(0));
    folder.run(&["keys", "create", "--name", "reader"]).expect(0);
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert!(file.exists(), "a reader replaces no admin");
    folder.run(&["keys", "create", "--name", "anna", "--scope", "admin"]).expect(0);
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert!(!file.exists());
    says(&folder.said(), &["there is another admin key"]);
    // The key of the configuration is one too.
    folder.write("data.admin-key", "not-a-key\n");
    folder.set("WAYBILL_ADMIN_KEY", crate::support::program::ADMIN_KEY);
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_client_that_a_trusted_proxy_names() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    for (trusted, expected) in [("10.0.0.1", "peer=127.0.0.1"), ("127.0.0.0/8", "peer=198.51.100.7")] {
        folder.set("WAYBILL_HTTP_TRUSTED_PROXIES", trusted);
        let before = folder.said().matches(expected).count();
        let serving = folder.serve();
        let request = reqwest::Client::new().get(format!("{}/api/v1/shops", serving.base)).bearer_auth("guess");
        let answer = request.header("X-Forwarded-For", "1.1.1.1, 198.51.100.7").send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(serving.terminate().0, Some(0));
        assert_eq!(folder.said().matches(expected).count(), before + 1, "{trusted}: {}", folder.said());
    }
}
