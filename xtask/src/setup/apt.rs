//! Debian packages: one apt-get for all that is missing, as root, without removing or downgrading packages of the host.
//!
//! apt-get first simulates the installation. If installing a program that only tests need would remove or downgrade a
//! package of the host, such as one from backports, the program is unpacked under target instead.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{Need, Remedy};
use crate::{command, root, tree, unpacked};

/// `policy-rc.d` and `disable` keep the packages' services from running, now and after a reboot: a build must not start a
/// web server on port 80 of the host.
const INSTALL: &str = r#"
set -eu
if [ ! -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-remove --no-install-recommends "$@" > /dev/null
for package in "$@"; do
    if [ -d /run/systemd/system ]; then
        for unit in $(dpkg -L "$package" | sed -n 's,^\(/usr\)\?/lib/systemd/system/\([^/@]*\.service\)$,\2,p'); do
            systemctl --quiet disable "$unit"
        done
    fi
done
"#;

/// Makes apt-get resolve dependencies as on a machine without packages, so that nothing can conflict.
const NOTHING_INSTALLED: &[&str] = &["--option", "Dir::State::status=/dev/null"];

/// Never unpacked: it must match the dynamic loader, and the kernel always uses the host's loader in /lib64.
const C_LIBRARY: &str = "libc6";

/// Does this machine have apt-get?
pub fn is_available() -> bool {
    command::find("apt-get").is_some()
}

/// Installs or unpacks the packages among the missing needs.
pub fn provide(missing: &[Need]) -> Result<()> {
    update_if_unknown(missing)?;
    let plan = Plan::new(missing, |packages| harm(simulate(packages, &[]).as_deref()));
    install(&plan.install)?;
    for (need, harm) in &plan.unpack {
        unpack(need, harm)?;
    }
    Ok(())
}

/// What to do with each missing package.
struct Plan<'a> {
    install: Vec<&'a Need>,
    /// Each with the harm that its installation would do.
    unpack: Vec<(&'a Need, String)>,
}

impl<'a> Plan<'a> {
    /// `harm` says what installing these packages together would remove, downgrade or change on the host.
    fn new(missing: &'a [Need], harm: impl Fn(&[&str]) -> Option<String>) -> Self {
        let is_portable = |need: &&Need| matches!(need.remedy, Remedy::PortablePackage(_));
        let (portable, mut install): (Vec<_>, Vec<_>) = missing
            .iter()
            .filter(|need| matches!(need.remedy, Remedy::Package(_) | Remedy::PortablePackage(_)))
            .partition(is_portable);

        let all = [&install[..], &portable].concat();
        if harm(&names(&all)).is_none() {
            return Self { install: all, unpack: Vec::new() };
        }
        let mut unpack = Vec::new();
        for need in portable {
            install.push(need);
            if let Some(harm) = harm(&names(&install)) {
                install.pop();
                unpack.push((need, harm));
            }
        }
        Self { install, unpack }
    }
}

/// Updates apt's package lists, which needs root, if they lack a package.
fn update_if_unknown(missing: &[Need]) -> Result<()> {
    let is_known =
        |package: &&str| command::query(Command::new("apt-cache").args(["show", package])).is_some();
    let Some(unknown) = missing.iter().filter_map(Need::package).find(|package| !is_known(package)) else {
        return Ok(());
    };
    eprintln!("setup: updating apt's package lists, which lack {unknown}");
    let mut update = root::command("apt-get", &[], "updating apt's package lists")?;
    command::run(update.args(["update", "--quiet=2"]))
}

/// The output of a simulated `apt-get install`, or `None` if it fails.
fn simulate(packages: &[&str], options: &[&str]) -> Option<String> {
    let mut apt = Command::new("apt-get");
    apt.env("LC_ALL", "C").args(options);
    command::query(apt.args(["install", "--simulate", "--no-install-recommends"]).args(packages))
}

/// What a simulated installation would remove, downgrade or change on the host.
fn harm(simulation: Option<&str>) -> Option<String> {
    let Some(simulation) = simulation else {
        return Some("conflict with installed packages".into());
    };
    let listed = |heading: &str| {
        let names: Vec<_> = simulation
            .lines()
            .skip_while(|line| *line != heading)
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .flat_map(str::split_whitespace)
            .collect();
        names.join(" ")
    };
    [
        ("remove", "The following packages will be REMOVED:"),
        ("downgrade", "The following packages will be DOWNGRADED:"),
        ("change the held", "The following held packages will be changed:"),
    ]
    .map(|(verb, heading)| (verb, listed(heading)))
    .into_iter()
    .find(|(_, names)| !names.is_empty())
    .map(|(verb, names)| format!("{verb} {names}"))
}

fn install(needs: &[&Need]) -> Result<()> {
    if needs.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    for need in needs {
        eprintln!("setup: package {}: {}", need.package().unwrap_or_default(), need.reason);
    }
    let packages = names(needs);
    let quiet = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let mut shell = root::command("sh", &quiet, "installing these packages with apt-get")?;
    command::run(shell.args(["-c", INSTALL, "sh"]).args(&packages)).with_context(|| {
        format!(
            "cannot install {} (setup is tested only on Debian 12 with its security updates)",
            packages.join(" ")
        )
    })?;
    eprintln!("setup: {} installed in {:.1?}", packages.join(", "), start.elapsed());
    Ok(())
}

fn unpack(need: &Need, harm: &str) -> Result<()> {
    let package = need.package().unwrap_or_default();
    eprintln!("setup: package {package}: {}", need.reason);
    eprintln!("setup: unpacking {package} under target, because installing it would {harm}");
    unpack_into(&tree::unpacked(), need.what, package, &installed()?).map(drop)
}

/// Unpacks a program's package, and those that it depends on and that are not installed; returns the launcher.
fn unpack_into(top: &Path, program: &str, package: &str, installed: &str) -> Result<PathBuf> {
    let simulation = simulate(&[package], NOTHING_INSTALLED)
        .with_context(|| format!("apt-get cannot resolve the dependencies of {package}"))?;
    let directory = unpacked::unpack(top, package, &absent(&simulation, installed))?;
    unpacked::write_launcher(top, program, &directory)
}

/// The names of packages, sorted, without duplicates.
fn names(needs: &[&Need]) -> Vec<&'static str> {
    let names: BTreeSet<_> = needs.iter().filter_map(|need| need.package()).collect();
    names.into_iter().collect()
}

/// One version of a package: name, version, architecture.
type Version<'a> = (&'a str, &'a str, &'a str);

/// The packages of a simulated installation that the host does not have in this version, in the format of
/// `apt-get download`.
fn absent(simulation: &str, installed: &str) -> Vec<String> {
    let installed: BTreeSet<Version> = installed.lines().filter_map(parse_installed).collect();
    simulation
        .lines()
        .filter_map(parse_simulated)
        .filter(|version| version.0 != C_LIBRARY && !installed.contains(version))
        .map(|(name, version, _)| format!("{name}={version}"))
        .collect()
}

/// `Inst libpng16-16 (1.6.39-2 Debian:12.15/oldstable [amd64])`
fn parse_simulated(line: &str) -> Option<Version<'_>> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split(' ').next()?;
    let architecture = rest.rsplit_once('[')?.1.split(']').next()?;
    Some((name, version, architecture))
}

/// The installed packages, one per line.
fn installed() -> Result<String> {
    let format = "--showformat=${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n";
    command::query(Command::new("dpkg-query").args(["--show", format])).context("list the installed packages")
}

/// `ii  libpng16-16 1.6.39-2 amd64`
fn parse_installed(line: &str) -> Option<Version<'_>> {
    let mut words = line.strip_prefix("ii ")?.split_whitespace();
    Some((words.next()?, words.next()?, words.next()?))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;
    use crate::vm::EMULATOR;

    const NEW: &str = "\
The following NEW packages will be installed:
  libslirp0 qemu-system-x86
0 upgraded, 2 newly installed, 0 to remove and 132 not upgraded.
Inst libslirp0 (4.7.0-1 Debian:12.15/oldstable [amd64])
Inst qemu-system-x86 (1:7.2+dfsg-7 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Conf libslirp0 (4.7.0-1 Debian:12.15/oldstable [amd64])
";
    const REMOVING: &str = "\
Recommended packages:
  qemu-utils
The following packages will be REMOVED:
  qemu-block-extra qemu-utils
The following NEW packages will be installed:
  qemu-system-x86
Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]
Inst qemu-system-x86 (1:7.2+dfsg-7 Debian:12.15/oldstable [amd64])
";
    const DOWNGRADING: &str = "\
The following packages will be DOWNGRADED:
  libslirp0
0 upgraded, 0 newly installed, 1 downgraded, 0 to remove and 132 not upgraded.
";

    #[test]
    fn removing_downgrading_and_failing_are_harm_and_adding_is_not() {
        assert_eq!(harm(Some(NEW)), None);
        assert_eq!(harm(Some(REMOVING)).as_deref(), Some("remove qemu-block-extra qemu-utils"));
        assert_eq!(harm(Some(DOWNGRADING)).as_deref(), Some("downgrade libslirp0"));
        assert!(harm(None).is_some());
    }

    #[test]
    fn everything_is_installed_if_that_does_no_harm() {
        let missing = [need(Remedy::PortablePackage("qemu")), need(Remedy::Package("llvm"))];

        let plan = Plan::new(&missing, |_| None);

        assert_eq!(names(&plan.install), ["llvm", "qemu"]);
        assert!(plan.unpack.is_empty());
    }

    #[test]
    fn only_the_portable_package_that_does_harm_is_unpacked() {
        let missing = [
            need(Remedy::PortablePackage("curl")),
            need(Remedy::PortablePackage("qemu")),
            need(Remedy::Package("llvm")),
            need(Remedy::PortablePackage("wrk")),
        ];
        let harm = |packages: &[&str]| packages.contains(&"qemu").then(|| "remove qemu-utils".to_owned());

        let plan = Plan::new(&missing, harm);

        assert_eq!(names(&plan.install), ["curl", "llvm", "wrk"]);
        let unpack: Vec<_> = plan.unpack.iter().map(|(need, harm)| (need.package(), harm.as_str())).collect();
        assert_eq!(unpack, [(Some("qemu"), "remove qemu-utils")]);
    }

    #[test]
    fn two_conflicting_portable_packages_are_not_installed_together() {
        let missing = [need(Remedy::PortablePackage("a")), need(Remedy::PortablePackage("b"))];

        let plan = Plan::new(&missing, |packages| (packages.len() > 1).then(|| "remove a".to_owned()));

        assert_eq!(names(&plan.install), ["a"]);
        assert_eq!(plan.unpack.len(), 1);
    }

    #[test]
    fn a_package_that_must_be_installed_is_never_unpacked() {
        let missing = [need(Remedy::Package("llvm"))];

        let plan = Plan::new(&missing, |_| Some("remove gcc".into()));

        assert_eq!(names(&plan.install), ["llvm"]);
        assert!(plan.unpack.is_empty());
    }

    #[test]
    fn packages_installed_in_the_same_version_are_not_downloaded() {
        let same = "ii  libslirp0 4.7.0-1 amd64\n";
        let others = "\
ii  libslirp0 4.8.0-1 amd64
ii  libslirp0 4.7.0-1 i386
rc  libslirp0 4.7.0-1 amd64
";

        assert_eq!(absent(NEW, same), ["qemu-system-x86=1:7.2+dfsg-7"]);
        assert_eq!(absent(NEW, others), ["libslirp0=4.7.0-1", "qemu-system-x86=1:7.2+dfsg-7"]);
    }

    #[test]
    fn the_c_library_is_never_downloaded() {
        let simulation = "Inst libc6 (2.36-9+deb12u13 Debian:12.15/oldstable [amd64])\n";

        assert!(absent(simulation, "ii  libc6 2.36-9+deb12u10 amd64\n").is_empty());
    }

    /// As on a host without any of the libraries.
    #[test]
    fn an_unpacked_program_starts_with_the_libraries_unpacked_with_it() {
        if !can_download("kmod") {
            return;
        }
        let top = tree::top().join("target/tests/unpacked");

        // A package whose program is a link, and needs libraries.
        let launcher = unpack_into(&top, "insmod", "kmod", "").unwrap();

        let version = command::query(Command::new(&launcher).arg("--version"));
        assert!(version.unwrap().starts_with("kmod version"));
        let loaded = unpacked::launched(&launcher).unwrap();
        for file in ["kmod/sbin/insmod", "libcrypto.so", "liblzma.so", "libzstd.so"] {
            let path = loaded.iter().find(|path| path.to_string_lossy().contains(file)).expect(file);
            assert!(path.starts_with(&top), "{}", path.display());
        }
        fs::remove_dir_all(&top).unwrap();
    }

    /// On a host with a package that conflicts with the emulator's, as qemu-utils from backports does.
    #[test]
    fn an_emulator_that_conflicts_with_the_host_is_unpacked_and_starts_with_its_own_files() {
        const PACKAGE: &str = "qemu-system-x86";
        /// dpkg's list of packages, as of a host without others.
        const CONFLICTING: &str = "\
Package: conflicting
Status: install ok installed
Maintainer: none
Architecture: all
Version: 1
Conflicts: qemu-system-x86
Description: none
";
        if !can_download(PACKAGE) {
            return;
        }
        let top = tree::top().join("target/tests/conflict");
        fs::create_dir_all(&top).unwrap();
        let status = top.join("status");
        fs::write(&status, CONFLICTING).unwrap();
        let option = format!("Dir::State::status={}", status.display());
        let before = installed().unwrap();
        // The host may have the emulator itself.
        let is_other = |line: &&str| parse_installed(line).is_none_or(|(name, _, _)| name != PACKAGE);
        let others: Vec<_> = before.lines().filter(is_other).collect();
        let missing = [Need { what: EMULATOR, ..need(Remedy::PortablePackage(PACKAGE)) }];

        let plan =
            Plan::new(&missing, |packages| harm(simulate(packages, &["--option", &option]).as_deref()));
        let launcher = unpack_into(&top, EMULATOR, PACKAGE, &others.join("\n")).unwrap();

        assert!(plan.install.is_empty(), "{:?}", names(&plan.install));
        let harm = plan.unpack.iter().map(|(_, harm)| harm).next().unwrap();
        assert!(harm.starts_with("remove ") && harm.contains("conflicting"), "{harm}");
        let run = |arguments: &[&str]| command::query(Command::new(&launcher).args(arguments)).unwrap();
        assert!(run(&["--version"]).starts_with("QEMU emulator version"));
        for line in run(&["-L", "help"]).lines() {
            assert!(Path::new(line).starts_with(&top), "data is read from {line}");
        }
        // A machine whose firmware comes from there, and whose emulated CPU is a module beside the program.
        let machine = "echo quit | \"$0\" -M pc -accel tcg -nodefaults -display none -S -monitor stdio";
        let output = command::query(Command::new("sh").args(["-c", machine]).arg(&launcher));
        assert!(output.is_some_and(|output| output.contains("monitor")));
        let loaded = unpacked::launched(&launcher).unwrap();
        let own: Vec<_> = loaded.iter().filter(|path| path.starts_with(&top)).collect();
        assert!(own.contains(&&top.join(PACKAGE).join("usr/bin").join(EMULATOR)), "{own:?}");
        assert_eq!(installed().unwrap(), before, "packages of the host have changed");
        fs::remove_dir_all(&top).unwrap();
    }

    /// Says so if not: a test that was skipped must be visible.
    fn can_download(package: &str) -> bool {
        let uris = ["download", "--print-uris", "--quiet=2", package];
        let can = command::query(Command::new("apt-get").args(uris)).is_some();
        if !can {
            // Not captured by the test runner.
            let message = format!("NOT RUN: apt-get has no package {package}: run `apt-get update`");
            writeln!(std::io::stderr(), "{message}").unwrap();
        }
        can
    }

    fn need(remedy: Remedy) -> Need {
        Need { what: "a program", reason: "a test", is_met: false, remedy }
    }
}
