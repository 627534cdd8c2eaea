//! Packages of Debian: one apt-get for all that is missing, as root.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Cure, Need};
use crate::{command, root};

/// Installs the packages named as arguments. `policy-rc.d` and `disable` keep their services from running, now and
/// after a reboot: nobody who builds a load balancer expects a web server on port 80 of the host. `--no-remove` makes
/// apt give up rather than take away a package that conflicts.
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

/// Whether this machine installs packages as Debian does.
pub fn is_here() -> bool {
    command::find("apt-get").is_some()
}

/// Installs all packages among the missing.
pub fn install(missing: &[Need]) -> Result<()> {
    let start = Instant::now();
    let mut packages = Vec::new();
    for need in missing {
        if let Cure::Package(package) = need.cure {
            eprintln!("setup: package {package}: {}", need.reason);
            packages.push(package);
        }
    }
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }

    let quiet = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let mut shell = root::command("sh", &quiet, "installing these packages with apt-get")?;
    command::run(shell.args(["-c", INSTALL, "sh"]).args(&packages)).with_context(|| {
        format!(
            "install {}: this is known to work on Debian 12 with its security updates",
            packages.join(" ")
        )
    })?;
    eprintln!("setup: {} packages installed in {:.1?}", packages.len(), start.elapsed());
    Ok(())
}
