//! 200 MB down and up: not a byte may differ.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lb_common::service::Mode;
use tests::lab::{Config, Lab, Shape, Topology, command};

const BYTES: &str = "200000000";

#[test]
fn a_large_file_arrives_as_it_was_in_full_nat_mode() -> Result<()> {
    moves_a_large_file_down_and_up(Mode::FullNat)
}

#[test]
fn a_large_file_arrives_as_it_was_in_nat_mode() -> Result<()> {
    moves_a_large_file_down_and_up(Mode::Nat)
}

fn moves_a_large_file_down_and_up(mode: Mode) -> Result<()> {
    let lab = Lab::build(&Topology::new("bulk", Shape::TwoNics).mode(mode))?;
    let _web = lab.web_servers()?;
    let xlb = lab.start(&Config::web(&lab, mode))?;
    xlb.wait_until_all_are_up()?;
    let file = lab.directory().join("files/large");
    let path = file.display();
    command::run(&["sh", "-c", &format!("head -c {BYTES} /dev/urandom > {path}")])?;
    let expected = sha256(&file)?;

    for host in ["192.0.2.10", "[2001:db8::10]"] {
        let fetch = format!("curl -sS http://{host}/files/large | sha256sum");
        let fetched = lab.client.run(&["sh", "-c", &fetch])?;
        assert_eq!(first_word(&fetched)?, expected, "down from {host}, {mode:?}");

        let url = format!("http://{host}/uploads/large");
        lab.client.run(&["curl", "-sSf", "-T", &path.to_string(), &url])?;
        let uploaded = lab.directory().join("uploads/large");
        assert_eq!(sha256(&uploaded)?, expected, "up to {host}, {mode:?}");
        fs::remove_file(uploaded)?;
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    first_word(&command::run(&["sha256sum", &file.display().to_string()])?)
}

fn first_word(line: &str) -> Result<String> {
    line.split_whitespace().next().map(str::to_owned).context("no checksum")
}
