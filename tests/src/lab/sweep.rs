//! Removes a lab: processes, namespaces, pins, files. All are found by name.
//!
//! A lab is called `xlb-TAG-PID` and has a directory of that name, made first and removed last. So a lab whose
//! process died without cleaning up can be distinguished from one in use, unless it is to stay (`kept`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{command, namespace, wait::eventually};

/// The directories of all labs.
pub const ROOT: &str = "/run/xlb-lab";
/// The file that marks a lab that outlives its process.
pub const KEPT: &str = "kept";
/// The lab's bpffs, below its directory.
pub const BPFFS: &str = "bpf";

/// Serialises the thread that cleans up after a signal with threads that are still cleaning up themselves.
static REMOVING: Mutex<()> = Mutex::new(());

/// A killed process is gone within this time.
const DEATH: Duration = Duration::from_secs(5);

/// Removes what dead processes left behind.
pub fn sweep() -> Result<()> {
    for lab in labs()? {
        if !is_kept(&lab) && !is_alive(&lab) {
            remove(&lab)?;
        }
    }
    Ok(())
}

/// The labs that were meant to stay.
pub fn kept() -> Result<Vec<String>> {
    Ok(labs()?.into_iter().filter(|lab| is_kept(lab)).collect())
}

/// Removes everything that this process made and did not keep, until there is nothing more: another thread may still
/// be building.
pub fn remove_own() -> Result<()> {
    eventually(DEATH, "everything is removed", || {
        let own = own()?;
        own.iter().try_for_each(|lab| remove(lab))?;
        Ok(own.is_empty())
    })
    .map(drop)
}

/// The labs of this process, by their directories or by what came after those were removed.
fn own() -> Result<BTreeSet<String>> {
    let mut own: BTreeSet<_> = labs()?.into_iter().collect();
    for namespace in namespace::beginning_with("xlb-")? {
        own.extend(namespace.name().splitn(4, '-').collect::<Vec<_>>().get(..3).map(|parts| parts.join("-")));
    }
    own.retain(|lab| pid_of(lab) == Some(Pid::this()) && !is_kept(lab));
    Ok(own)
}

/// Removes one lab, in whatever state it is.
pub fn remove(lab: &str) -> Result<()> {
    let _alone = REMOVING.lock().unwrap_or_else(PoisonError::into_inner);
    for namespace in namespace::beginning_with(&format!("{lab}-"))? {
        eventually(DEATH, &format!("the processes in {namespace} are gone"), || {
            let pids = namespace.pids()?;
            for pid in &pids {
                // It may end by itself in between.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            Ok(pids.is_empty())
        })?;
        command::run(&["ip", "netns", "del", namespace.name()])?;
    }

    let directory = directory(lab);
    let bpffs = directory.join(BPFFS);
    match umount2(&bpffs, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("unmount {}", bpffs.display())),
    }
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where a lab has its files.
pub fn directory(lab: &str) -> PathBuf {
    Path::new(ROOT).join(lab)
}

fn labs() -> Result<Vec<String>> {
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {ROOT}")),
    };
    let mut labs = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if pid_of(&name).is_some() {
            labs.push(name);
        }
    }
    labs.sort();
    Ok(labs)
}

fn is_kept(lab: &str) -> bool {
    directory(lab).join(KEPT).exists()
}

fn is_alive(lab: &str) -> bool {
    pid_of(lab).is_some_and(|pid| kill(pid, None).is_ok())
}

/// The PID in `xlb-TAG-PID`.
fn pid_of(lab: &str) -> Option<Pid> {
    let mut parts = lab.split('-');
    let ("xlb", _tag, pid, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    pid.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_lab_tells_whose_it_is() {
        assert_eq!(pid_of("xlb-demo-4711"), Some(Pid::from_raw(4711)));
        assert_eq!(pid_of("xlb-demo-4711-client"), None);
        assert_eq!(pid_of("web-demo-4711"), None);
        assert_eq!(pid_of("xlb-demo"), None);
    }
}
