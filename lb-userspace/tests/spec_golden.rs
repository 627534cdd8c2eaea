//! Each class of mistakes has a file with it, `golden/CLASS.toml`, and the expected output, `golden/CLASS.txt`.
//!
//! `XLB_BLESS=1 cargo test -p lb-userspace --test spec_golden` rewrites the `.txt` files: read the diff.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "spec/many.rs"]
mod many;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use lb_userspace::spec;
use nix::{sys::stat::Mode, unistd::mkfifo};

/// The classes. All are compared in one test, so that a change of wording shows everything that it affects.
const CLASSES: &[&str] = &[
    "announce",
    "backend_address_twice",
    "backend_impossible_address",
    "backend_name",
    "backend_of_a_family_without_listen",
    "backend_of_one_family_missing",
    "backend_on_the_balancer",
    "backend_twice",
    "backend_without_port",
    "cluster_files",
    "cluster_keys",
    "cluster_missing_keys",
    "empty",
    "exec",
    "full_nat_without_source",
    "group_keys",
    "group_missing_keys",
    "group_on_a_service_address",
    "group_same_nodes",
    "group_sources",
    "group_too_many_peers",
    "group_without_peer",
    "half_open_above_flows",
    "health_agent_keys",
    "health_dns_answer",
    "health_dns_answer_without_noerror",
    "health_dns_keys",
    "health_dns_without_name",
    "health_duration",
    "health_duration_bounds",
    "health_duration_without_unit",
    "health_exec_keys",
    "health_exec_not_allowed",
    "health_grpc_keys",
    "health_host",
    "health_host_of_another_type",
    "health_http_head_without_body",
    "health_http_keys",
    "health_interval_shorter_than_inherited_timeout",
    "health_mysql_keys",
    "health_of_udp_without_port",
    "health_parts",
    "health_password",
    "health_path",
    "health_path_of_another_type",
    "health_path_too_long",
    "health_path_with_a_line_break",
    "health_path_with_a_space",
    "health_port",
    "health_port_of_another_protocol",
    "health_postgres_keys",
    "health_redis_keys",
    "health_rise_and_fall",
    "health_timeout_longer_than_interval",
    "health_tls_certificate_without_key",
    "health_tls_keys",
    "health_type",
    "health_udp_keys",
    "health_udp_of_tcp_without_port",
    "health_udp_without_send",
    "interface_mode",
    "interface_name",
    "interface_twice",
    "key_file",
    "key_twice",
    "limits_bounds",
    "list_instead_of_table",
    "listen_impossible_address",
    "listen_not_an_address",
    "listen_twice",
    "listen_twice_in_one_service",
    "listen_without_port",
    "metrics_listen",
    "metrics_listen_without_address",
    "missing_key",
    "missing_version",
    "mode_dsr_not_in_this_version",
    "mode_gue_not_in_this_version",
    "mode_ipip_not_in_this_version",
    "mode_unknown",
    "no_backend",
    "no_interface",
    "no_listen",
    "no_service",
    "on_down",
    "on_down_of_udp",
    "on_refused",
    "panic_threshold",
    "panic_threshold_with_unit",
    "port_out_of_range",
    "protocol",
    "quorum",
    "reject",
    "role_keys",
    "scheduler_unknown",
    "secret_that_others_can_read",
    "service_name",
    "service_name_too_long",
    "service_twice",
    "share_flows",
    "several",
    "slow_start",
    "socket_path",
    "socket_path_too_long",
    "source_impossible_address",
    "source_in_nat_mode",
    "source_of_a_family_without_listen",
    "source_of_one_family_missing",
    "source_twice",
    "source_with_port",
    "syntax",
    "table_instead_of_list_of_tables",
    "too_many_slots",
    "too_many_sources",
    "unknown_key",
    "unknown_key_without_suggestion",
    "unknown_table",
    "unknown_version",
    "weight_out_of_bounds",
    "wrong_type",
];

type Make = fn(&Path);

/// Classes whose file is generated, because it is not text or too long. Only `golden/CLASS.txt` is stored.
const MADE: &[(&str, Make)] = &[
    ("exec_in_a_file_of_others", |file| {
        let head = "version = 1\n\n[exec]\nallow = true\n\n";
        let rest = many::services(1, 1, 1).replace("version = 1\n", "");
        fs::write(file, head.to_owned() + &rest).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o664)).unwrap();
    }),
    ("file_is_a_directory", |file| fs::create_dir(file).unwrap()),
    ("file_is_a_fifo", |file| mkfifo(file, Mode::S_IRUSR).unwrap()),
    ("file_not_utf8", |file| fs::write(file, b"version = 1\nname = \"\xff\"\n").unwrap()),
    ("file_too_large", |file| fs::write(file, "#".repeat(64 * 1024 * 1024 + 1)).unwrap()),
    // A file that even root cannot read.
    ("file_unreadable", |file| symlink(file, file).unwrap()),
    ("too_many_backends", |file| fs::write(file, many::services(33, 1, 500)).unwrap()),
    ("too_many_listens", |file| fs::write(file, many::services(2, 8192 / 2, 1)).unwrap()),
    ("too_many_services", |file| fs::write(file, many::services(1025, 1, 1)).unwrap()),
];

#[test]
fn every_class_of_mistakes_matches_its_golden_file() {
    let mut wrong = Vec::new();
    for class in CLASSES {
        let text = fs::read_to_string(golden(class, "toml")).unwrap();

        let told = match spec::parse(&format!("{class}.toml"), &text) {
            Ok(spec) => panic!("{class}.toml is taken for good: {spec:?}"),
            Err(mistakes) => format!("{mistakes}\n"),
        };

        wrong.extend(difference(class, &told));
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_generated_file_matches_its_golden_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (class, make) in MADE {
        let file = directory.path().join(class).with_extension("toml");
        make(&file);

        let told = format!("{}\n", spec::read(&file, &BTreeSet::new()).unwrap_err());

        let directory = directory.path().display().to_string();
        // Without root, it is the directory that others can change.
        let told = told.replace(&format!("{directory} "), &format!("{directory}/{class}.toml "));
        let told = told.replace(&format!("{directory}`"), &format!("{directory}/{class}.toml`"));
        wrong.extend(difference(class, &told.replace(&format!("{directory}/"), "")));
    }

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_file_belongs_to_a_class_and_every_class_has_both() {
    let have: BTreeSet<String> = fs::read_dir(golden("", ""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let want = CLASSES.iter().flat_map(|class| [format!("{class}.toml"), format!("{class}.txt")]);
    let made = MADE.iter().map(|(class, _)| format!("{class}.txt"));

    assert_eq!(have, want.chain(made).collect());
}

#[test]
fn every_line_names_file_line_and_column() {
    for class in CLASSES {
        let name = format!("{class}.toml");
        let text = fs::read_to_string(golden(class, "toml")).unwrap();

        for line in spec::parse(&name, &text).unwrap_err().each() {
            let place: Vec<&str> = line.splitn(4, ':').collect();
            assert_eq!(place[0], name);
            assert!(place[1].parse::<usize>().is_ok() && place[2].parse::<usize>().is_ok(), "{line}");
        }
    }
}

/// The difference from the golden file, if there is one.
fn difference(class: &str, told: &str) -> Option<String> {
    if std::env::var_os("XLB_BLESS").is_some() {
        fs::write(golden(class, "txt"), told).unwrap();
    }
    let expected = fs::read_to_string(golden(class, "txt")).unwrap_or_default();
    (told != expected).then(|| format!("--- expected\n{expected}--- told\n{told}"))
}

fn golden(class: &str, extension: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if class.is_empty() { directory } else { directory.join(class).with_extension(extension) }
}
