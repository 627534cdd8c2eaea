//! What is pinned, and where.
//!
//! ```text
//!   ROOT/                  XLB_PINS; locked by the daemon
//!     SERVICES_5f3a9c21    a map, and the version of its layout (with `-new` at its end until it is filled)
//!     lb                   the program
//!     slow_paths_12        the slow paths of the program with id 12
//!     layouts_12           the maps of the program with id 12, and their layouts
//!     link_4               its link to interface index 4 (bpffs does not allow the dot of `eth0.100`)
//! ```
//!
//! The links show which program runs, and so which maps are used. Everything else is left over from an interrupted
//! start, and the next complete start removes it.
//!
//! The maps are listed in the table of [`shapes`].

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::{layout, shapes};

/// The program's pin.
pub const PROGRAM: &str = "lb";
const LINK: &str = "link_";
const SLOW_PATHS: &str = "slow_paths_";
const MANIFEST: &str = "layouts_";
const UNFINISHED: &str = "-new";

/// The pin of a map of this version.
pub fn map(directory: &Path, name: &str) -> PathBuf {
    directory.join(shapes::pin_name(name))
}

/// The name of the pin of a program's slow paths.
pub fn slow_paths_name(program: u32) -> String {
    format!("{SLOW_PATHS}{program}")
}

/// The name of the pin of a program's manifest.
pub fn manifest_name(program: u32) -> String {
    format!("{MANIFEST}{program}")
}

/// Does the directory have these pins, and those of the links to these interfaces?
pub fn are_complete(directory: &Path, names: &[String], interfaces: &[u32]) -> bool {
    names.iter().all(|name| directory.join(name).exists())
        && interfaces.iter().all(|index| link(directory, *index).exists())
}

/// The pin of a link.
pub fn link(directory: &Path, interface: u32) -> PathBuf {
    directory.join(format!("{LINK}{interface}"))
}

/// The interface indices with a link in this directory.
pub fn links(directory: &Path) -> anyhow::Result<Vec<u32>> {
    let names = names_in(directory)?;
    Ok(names.iter().filter_map(|name| interface(name)).collect())
}

/// Completes renames of link pins that a killed daemon left unfinished.
///
/// The final path holds what [`attach`](super::attach) was about to replace: nothing, a dead link, or the same one.
pub fn finish_links(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let Some(index) = name.strip_suffix(UNFINISHED).and_then(interface) else { continue };
        rename(&directory.join(&name), &link(directory, index))?;
    }
    Ok(())
}

/// The interface index in the name of a link's pin.
fn interface(name: &str) -> Option<u32> {
    name.strip_prefix(LINK)?.parse().ok()
}

/// The temporary path from which a pin is renamed to its final path.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    path.with_file_name(name)
}

/// The pin directories of xlb 0.1.0 and before: `v` and a number, which stands for a layout of all maps.
pub fn older_directories(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_older = |name: &&String| {
        let number = name.strip_prefix('v').map(|number| number.trim_end_matches(UNFINISHED));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    Ok(names_in(root)?.iter().filter(is_older).map(|name| root.join(name)).collect())
}

/// Is this the name of one of xlb's pins, in any version?
fn is_ours(name: &str) -> bool {
    let name = name.trim_end_matches(UNFINISHED);
    let of_program = |prefix| name.strip_prefix(prefix).is_some_and(|id: &str| id.parse::<u32>().is_ok());
    name == PROGRAM || layout::is_pin_name(name) || [LINK, SLOW_PATHS, MANIFEST].into_iter().any(of_program)
}

/// The pins that none of these programs uses, given the names of the maps that they use.
pub fn unused(
    directory: &Path,
    programs: &BTreeSet<u32>,
    maps: &BTreeSet<String>,
) -> anyhow::Result<Vec<PathBuf>> {
    let of_others = |name: &str, prefix| {
        let id = name.strip_prefix(prefix).and_then(|id: &str| id.parse().ok());
        id.is_some_and(|id: u32| !programs.contains(&id))
    };
    let is_unused = |name: &&String| {
        of_others(name, SLOW_PATHS)
            || of_others(name, MANIFEST)
            || layout::is_pin_name(name) && !maps.contains(*name)
            || name.strip_suffix(UNFINISHED).is_some_and(|it| it == PROGRAM || layout::is_pin_name(it))
    };
    Ok(names_in(directory)?.iter().filter(is_unused).map(|name| directory.join(name)).collect())
}

/// Removes all of xlb's pins from a directory. Returns whether there were any.
pub fn remove_all(directory: &Path) -> anyhow::Result<bool> {
    let names = names_in(directory)?;
    let ours: Vec<&String> = names.iter().filter(|name| is_ours(name)).collect();
    ours.iter().try_for_each(|name| remove_file(&directory.join(name)))?;
    Ok(!ours.is_empty())
}

/// Removes a directory of an older version, and the pins in it.
pub fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let path = directory.join(name);
        ensure!(
            !path.is_dir(),
            "{} is a directory that xlb did not create: remove it by hand",
            path.display()
        );
        remove_file(&path)?;
    }
    fs::remove_dir(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

/// This directory and those of its parents that do not exist, innermost first.
pub fn missing(directory: &Path) -> Vec<PathBuf> {
    directory
        .ancestors()
        .take_while(|it| !it.as_os_str().is_empty() && !it.exists())
        .map(Path::to_path_buf)
        .collect()
}

/// Removes these directories in order, up to the first that is not empty.
pub fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return,
            Err(error) => return log::warn!("cannot remove {}: {error}", directory.display()),
        }
    }
}

/// Removes a pin, if it exists.
pub fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// Renames a pin. It replaces a pin that already has the new name.
pub fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// The names in a directory, sorted. None if it does not exist.
pub fn names_in(directory: &Path) -> anyhow::Result<Vec<String>> {
    let look = || -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    look().with_context(|| format!("cannot read the directory {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_bpffs_follow_the_interface_and_the_program() {
        let directory = Path::new("/pins");

        assert_eq!(link(directory, 7), Path::new("/pins/link_7"));
        assert_eq!(unfinished(&link(directory, 7)), Path::new("/pins/link_7-new"));
        assert_eq!((slow_paths_name(12), manifest_name(12)), ("slow_paths_12".into(), "layouts_12".into()));
    }

    #[test]
    fn only_directories_of_older_versions_are_found() {
        let root = tempfile::tempdir().unwrap();
        for name in ["v1", "v2-new", "v", "valuable", "v10"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }

        let found = older_directories(root.path()).unwrap();

        assert_eq!(found, ["v1", "v10", "v2-new"].map(|name| root.path().join(name)));
    }

    #[test]
    fn pins_that_no_running_program_uses_are_unused() {
        let root = tempfile::tempdir().unwrap();
        let names = [
            "FLOWS4_00000001",
            "FLOWS4_00000002",
            "FLOWS4_00000002-new",
            "layouts_7",
            "layouts_8",
            "lb",
            "lb-new",
            "link_3",
            "slow_paths_7",
            "slow_paths_8",
            "theirs",
        ];
        for name in names {
            fs::write(root.path().join(name), "").unwrap();
        }
        let unused = |programs: &[u32]| -> Vec<String> {
            let maps = programs.iter().map(|_| "FLOWS4_00000002".to_owned()).collect();
            let paths = unused(root.path(), &programs.iter().copied().collect(), &maps).unwrap();
            paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };

        let others = ["FLOWS4_00000001", "FLOWS4_00000002-new", "layouts_7", "lb-new", "slow_paths_7"];
        assert_eq!(unused(&[8]), others);
        let of_any = ["FLOWS4_00000002", "layouts_8", "slow_paths_8"].map(str::to_owned);
        let mut all = [others.map(str::to_owned).as_slice(), &of_any].concat();
        all.sort();
        assert_eq!(unused(&[]), all);

        assert!(remove_all(root.path()).unwrap());
        assert_eq!(names_in(root.path()).unwrap(), ["theirs"]);
        assert!(!remove_all(root.path()).unwrap());
    }

    #[test]
    fn created_directories_are_removed_unless_they_are_in_use() {
        let place = tempfile::tempdir().unwrap();
        let innermost = place.path().join("bpf/xlb/other");
        let made = missing(&innermost);
        assert_eq!(made, ["bpf/xlb/other", "bpf/xlb", "bpf"].map(|name| place.path().join(name)));

        fs::create_dir_all(&innermost).unwrap();
        fs::create_dir(place.path().join("bpf/theirs")).unwrap();
        remove_empty(&made);

        assert_eq!(names_in(&place.path().join("bpf")).unwrap(), ["theirs"]);
        assert_eq!(missing(&place.path().join("bpf")), [""; 0].map(PathBuf::from));
    }

    #[test]
    fn interrupted_renames_of_links_are_finished() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["link_3", "link_3-new", "link_4-new", "link_x-new", "lb-new"] {
            fs::write(directory.path().join(name), name).unwrap();
        }

        finish_links(directory.path()).unwrap();

        assert_eq!(names_in(directory.path()).unwrap(), ["lb-new", "link_3", "link_4", "link_x-new"]);
        assert_eq!(fs::read(link(directory.path(), 3)).unwrap(), b"link_3-new");
    }

    #[test]
    fn links_are_found_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["link_12", "link_3", "lb", "link_x"] {
            fs::write(directory.path().join(name), "").unwrap();
        }

        assert_eq!(links(directory.path()).unwrap(), [12, 3]);
        remove_directory(directory.path()).unwrap();
        assert_eq!(links(directory.path()).unwrap(), [0; 0]);
    }
}
