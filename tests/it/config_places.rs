//! Where the paths of a configuration lead, schedules that never come, and built-in parts with another marketplace.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use waybill::config::MasterKeySource;

use crate::support::configuration::{load, problems};
use crate::support::program::Folder;

fn key_file(source: &MasterKeySource) -> PathBuf {
    match source {
        MasterKeySource::File(file) => file.clone(),
        MasterKeySource::Env(_) => panic!("a file was named"),
    }
}

#[test]
fn relative_paths_start_from_the_folder_of_the_file() {
    let folder = Folder::bare();
    folder.write("waybill.toml", "data_dir = \"deep/state\"\nmaster_key_file = \"secret/key\"\n");
    let file = folder.path("waybill.toml");
    let config = waybill::config::Config::load(Some(&file), &[].into()).unwrap();
    assert_eq!(config.data_dir, folder.path("deep/state"));
    assert_eq!(key_file(&config.master_key), folder.path("secret/key"));
    folder.write("waybill.toml", "");
    let config = waybill::config::Config::load(Some(&file), &[].into()).unwrap();
    assert_eq!(config.data_dir, folder.path("data"), "the default is as if it stood in the file");
    assert_eq!(key_file(&config.master_key), folder.path("data.key"));
    folder.write("waybill.toml", "data_dir = \"/srv/waybill\"\n");
    let config = waybill::config::Config::load(Some(&file), &[].into()).unwrap();
    assert_eq!(config.data_dir, Path::new("/srv/waybill"));
}

#[test]
fn paths_of_variables_start_from_the_current_folder() {
    let config = load("data_dir = \"a\"", &[("WAYBILL_DATA_DIR", "b"), ("WAYBILL_MASTER_KEY_FILE", "k")]).unwrap();
    assert_eq!(config.data_dir, Path::new("b"));
    assert_eq!(key_file(&config.master_key), Path::new("k"));
}

#[test]
fn a_tilde_is_the_home_folder() {
    let home = ("HOME", "/home/anna");
    let config = load("data_dir = \"~/waybill\"\nmaster_key_file = \"~/key\"", &[home]).unwrap();
    assert_eq!(config.data_dir, Path::new("/home/anna/waybill"));
    assert_eq!(key_file(&config.master_key), Path::new("/home/anna/key"));
    let config = load("", &[home, ("WAYBILL_DATA_DIR", "~/waybill")]).unwrap();
    assert_eq!(config.data_dir, Path::new("/home/anna/waybill"));
    assert_eq!(
        load("data_dir = \"~bob/waybill\"", &[home]).unwrap_err(),
        ["waybill.toml:1: data_dir: `~bob/waybill` would be another user's folder; write the full path"]
    );
    assert_eq!(
        problems("data_dir = \"~/waybill\""),
        ["waybill.toml:1: data_dir: `~/waybill`: the variable HOME is not set; write the full path"]
    );
    for none in ["", ".", "..", "~", "a/.."] {
        let found = load(&format!("data_dir = {none:?}"), &[home]).unwrap_err();
        assert!(found[0].starts_with("waybill.toml:1: data_dir: ") && found[0].contains("cannot be a data directory"));
    }
}

#[test]
fn a_link_that_leads_nowhere_is_named() {
    let folder = Folder::bare();
    symlink("gone", folder.path("link")).unwrap();
    folder.write("file", "");
    for (text, blocked, why) in [
        ("data_dir = \"link\"", "data_dir: ", "link is a link to gone, which cannot be used: No such file"),
        ("data_dir = \"link/data\"", "data_dir: ", "link is a link to gone, which cannot be used: No such file"),
        (
            "master_key_file = \"link\"",
            "master_key_file: ",
            "link is a link to gone, which cannot be used: No such file",
        ),
        ("data_dir = \"file/data\"", "data_dir: ", "file is a file, not a directory"),
    ] {
        folder.write("waybill.toml", text);
        for command in [&["check", "--offline"][..], &["shops", "list"], &["keys", "create", "--name", "k"], &["serve"]]
        {
            let ended = folder.run(command).expect(2);
            assert!(ended.err.contains(blocked) && ended.err.contains(why), "{text}: {command:?}: {}", ended.err);
        }
    }
    folder.write("waybill.toml", "data_dir = \"other\"");
    fs::create_dir(folder.path("real")).unwrap();
    symlink("real", folder.path("other")).unwrap();
    folder.run(&["keys", "create", "--name", "k"]).expect(0);
    assert!(folder.path("real/sled").exists(), "a link that leads to a folder is followed");
    symlink("gone", folder.path("fresh.key")).unwrap();
    folder.write("waybill.toml", "data_dir = \"fresh\"");
    let ended = folder.run(&["keys", "create", "--name", "k"]).expect(2);
    assert!(
        ended.err.contains("master_key_file: ") && ended.err.contains("fresh.key is a link to gone"),
        "{}",
        ended.err
    );
}

#[test]
fn the_folder_of_the_caller_does_not_matter() {
    let folder = Folder::bare();
    folder.write("waybill.toml", "data_dir = \"data\"\n");
    folder.run(&["keys", "create", "--name", "first"]).expect(0);
    fs::create_dir(folder.path("elsewhere")).unwrap();
    let list = |data_dir: Option<&str>| {
        let mut command = folder.command(&["keys", "list", "--config", "../waybill.toml"]);
        command.current_dir(folder.path("elsewhere")).envs(data_dir.map(|dir| ("WAYBILL_DATA_DIR", dir)));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = list(None);
    assert!(code == Some(0) && out.contains("first"), "{out}{err}");
    // Data of a version that took the path from the current folder.
    fs::rename(folder.path("data"), folder.path("elsewhere/data")).unwrap();
    fs::rename(folder.path("data.key"), folder.path("elsewhere/data.key")).unwrap();
    let (code, out, err) = list(None);
    assert!(code == Some(2) && out.is_empty(), "{out}{err}");
    assert!(err.contains("../waybill.toml:1: data_dir: ") && err.contains("elsewhere/data contains data"), "{err}");
    let (code, out, err) = list(Some("data"));
    assert!(code == Some(0) && out.contains("first"), "{out}{err}");
}

#[test]
fn a_schedule_that_never_comes_is_refused() {
    for never in ["0 0 0 31 2 *", "0 0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 30,31 FEB *"] {
        for key in ["sync", "reconcile"] {
            let found = problems(&format!("[schedule]\n{key} = \"{never}\""));
            let want = format!("waybill.toml:2: schedule.{key}: `{never}` never fires: no year has such a day");
            assert!(found.len() == 1 && found[0].starts_with(&want), "{found:?}");
        }
    }
    for seldom in ["0 0 0 29 2 *", "0 0 0 31 12 *", "0 0 0 31 * *", "0 30 2 L 2 *", "0 0 0 31 2 MON"] {
        assert_eq!(problems(&format!("[schedule]\nsync = \"{seldom}\"")), [""; 0], "{seldom}");
    }
    let folder = Folder::bare();
    folder.write("waybill.toml", "[schedule]\nsync = \"0 0 0 31 2 *\"\n");
    for command in [&["check", "--offline"][..], &["serve"], &["sync"]] {
        assert!(folder.run(command).expect(2).err.contains("never fires"), "{command:?}");
    }
}

const ELSEWHERE: &str = "[source]\nbase_url = \"https://api.example.com\"\n";

#[test]
fn another_marketplace_is_not_asked_for_what_the_built_in_one_has() {
    let folder = Folder::bare();
    folder.write("waybill.toml", &format!("{ELSEWHERE}auth = \"bearer\"\n"));
    for command in [&["check", "--offline"][..], &["check"], &["serve"], &["sync"], &["plan"], &["verify"]] {
        let ended = folder.run(command).expect(2);
        let want = "waybill.toml:2: source.base_url: `resources` is not set, and its default, shipments, is for \
                    https://api.bol.com; name what to sync from this host";
        assert!(ended.out.is_empty() && ended.err.contains(want), "{command:?}: {}", ended.err);
    }
    // What comes before there is a definition works: a shop, and a draft of the definition.
    folder.run(&["shops", "list"]).expect(0);
    let infer = ["schema", "infer", "things", "--path", "/things", "--limit", "20/min"];
    assert!(folder.run(&infer).expect(1).err.contains("no shops yet"));
    // Named, the catalog's definitions may be meant: an own way to the same API.
    assert_eq!(problems(&format!("resources = [\"shipments\"]\n{ELSEWHERE}auth = \"bearer\"\n")), [""; 0]);
    // On loopback is a sandbox of the built-in marketplace.
    let sandbox = "[source]\nbase_url = \"http://127.0.0.1:9\"\ntoken_url = \"http://127.0.0.1:9/token\"\n";
    load(sandbox, &[]).unwrap().check_resources().unwrap();
    let other_path = "[source]\nbase_url = \"https://api.bol.com/gateway\"\n";
    load(other_path, &[]).unwrap().check_resources().unwrap();
}

#[test]
fn secrets_of_another_marketplace_do_not_go_to_the_built_in_login() {
    let found = problems(&format!("resources = [\"shipments\"]\n{ELSEWHERE}"));
    assert_eq!(
        found,
        ["waybill.toml:3: source.base_url: source.token_url is not set, so the client secrets would go to \
          https://login.bol.com/token; name the token address of this host, or another source.auth"]
    );
    // A sandbox has a login host of its own.
    let found = problems("[source]\nbase_url = \"http://127.0.0.1:9\"\n");
    let want = "waybill.toml:2: source.base_url: source.token_url is not set, so the client secrets would go to https://login.";
    assert!(found.len() == 1 && found[0].starts_with(want), "{found:?}");
    assert_eq!(
        problems("[source]\nauth = \"basic\"\n"),
        [
            "waybill.toml:2: source.auth: https://api.bol.com accepts client credentials only; name the host that accepts this \
          with source.base_url"
        ]
    );
}

#[test]
fn rate_rules_of_the_built_in_marketplace_do_not_hold_for_another() {
    let own = "[resource.things]\nmedia_type = \"application/json\"\nid = \"/id\"\n\
               list = { path = \"/retailer/orders\", items = \"/things\", pages = { style = \"none\" } }\ntable = {}\n";
    let text = format!("resources = [\"things\"]\n{ELSEWHERE}auth = \"bearer\"\n{own}");
    let found = problems(&text);
    assert!(found.len() == 1 && found[0].contains("no rate rule for GET /retailer/orders; add it"), "{found:?}");
    let limits = "[source.limits]\n\"GET /retailer/orders\" = \"5/min\"\n";
    assert_eq!(problems(&format!("{text}{limits}")), [""; 0]);
}
