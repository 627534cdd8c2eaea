use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::spec::{AdminState, overlay::MAX_CHANGES};

#[test]
fn what_is_saved_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("not/there/yet"));

    assert_eq!(store.load().unwrap(), Overlay::default());
    store.save(&overlay()).unwrap();
    assert_eq!(store.load().unwrap(), overlay());
    store.save(&Overlay::default()).unwrap();

    assert_eq!(store.load().unwrap(), Overlay::default());
}

#[test]
fn the_format_on_disk_does_not_change() {
    let golden = r#"{
  "version": 1,
  "backends": [
    {
      "service": "web",
      "backend": "web-1",
      "change": {
        "file": {
          "address": "10.0.0.11:80",
          "weight": 100,
          "backup": false
        },
        "wish": {
          "address": "10.0.0.11:80",
          "weight": 50,
          "backup": true
        },
        "admin_state": "drain"
      }
    },
    {
      "service": "web",
      "backend": "web-2",
      "change": {
        "file": null,
        "wish": {
          "address": "[fd00::12]:80",
          "weight": 100,
          "backup": false
        },
        "admin_state": "ready"
      }
    }
  ]
}
"#;

    assert_eq!(String::from_utf8(encode(&overlay()).unwrap()).unwrap(), golden);
    assert_eq!(decode(golden.as_bytes()).unwrap(), overlay());
}

#[test]
fn a_crash_before_the_rename_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.save(&overlay()).unwrap();
    let half = &encode(&Overlay::default()).unwrap()[..9];

    fs::write(directory.path().join("overlay.json.new"), half).unwrap();

    assert_eq!(store.load().unwrap(), overlay());
    store.save(&Overlay::default()).unwrap();
    assert_eq!(store.load().unwrap(), Overlay::default());
    assert!(!directory.path().join("overlay.json.new").exists());
}

#[test]
fn a_link_left_in_the_way_is_replaced_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, directory.path().join("overlay.json.new")).unwrap();

    Store::new(directory.path()).save(&overlay()).unwrap();

    assert_eq!(fs::read_to_string(target).unwrap(), "precious");
}

#[test]
fn the_maximum_number_of_changes_fits_into_a_file() {
    let address = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap();
    let longest = Some(Definition { address, weight: 1000, backup: false, max_flows: 0 });
    let change = Change { file: longest, command: longest, admin_state: AdminState::Drain };
    let name = |number| BackendName::new(&"s".repeat(rules::MAX_NAME), &format!("{number:0>63}"));
    let entries = (0..MAX_CHANGES).map(|number| (name(number), change.clone())).collect();

    assert!(encode(&Overlay { entries }).unwrap().len() as u64 <= MAX_FILE);
}

#[test]
fn others_cannot_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());

    store.save(&overlay()).unwrap();

    assert_eq!(fs::metadata(store.path()).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn an_unreadable_file_is_reported_and_kept() {
    let foreign = r#"{"version": 2, "something": "else"}"#;
    let twice = String::from_utf8(encode(&overlay()).unwrap()).unwrap().replace("web-2", "web-1");
    let heavy = String::from_utf8(encode(&overlay()).unwrap()).unwrap().replace("50", "5000");
    let cases = [
        ("", "not a valid overlay: EOF"),
        ("{\"version\": 1", "not a valid overlay: EOF"),
        ("\u{0}\u{0}\u{0}", "not a valid overlay: expected value"),
        ("{\"version\": 1}", "missing field `backends`"),
        (foreign, "written by another version of xlb (format 2, this version reads 1)"),
        (&twice, "web/web-1 is listed twice"),
        (&heavy, "`5000` is out of range"),
    ];

    for (content, message) in cases {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        fs::write(store.path(), content).unwrap();

        let told = store.load().unwrap_err().to_string();

        assert!(told.contains(message), "{told}");
        assert!(told.starts_with(&store.path().display().to_string()) && told.ends_with(CURE), "{told}");
        assert_eq!(fs::read_to_string(store.path()).unwrap(), content);
    }
}

#[test]
fn a_failed_save_keeps_the_old_overlay() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("file/below"));
    fs::write(directory.path().join("file"), "").unwrap();

    let told = store.save(&overlay()).unwrap_err().to_string();

    assert!(told.contains("file/below: cannot create"), "{told}");
}

fn overlay() -> Overlay {
    let definition = |address: &str, weight, backup| {
        Some(Definition { address: address.parse().unwrap(), weight, backup, max_flows: 0 })
    };
    let drained = Change {
        file: definition("10.0.0.11:80", 100, false),
        command: definition("10.0.0.11:80", 50, true),
        admin_state: AdminState::Drain,
    };
    let added = Change {
        file: None,
        command: definition("[fd00::12]:80", 100, false),
        admin_state: AdminState::Ready,
    };
    let entries = [(BackendName::new("web", "web-1"), drained), (BackendName::new("web", "web-2"), added)];
    Overlay { entries: entries.into() }
}
