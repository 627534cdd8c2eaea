//! What is pinned, and where.
//!
//! ```text
//!   ROOT/                 XLB_PINS; locked by the daemon that has it
//!     v1/                 one directory per layout: pins of another are never opened
//!       SETTINGS ...      the maps that outlive the daemon
//!       BACKEND_NAMES ... three that only the controller knows
//!       lb                the program
//!       slow_paths_12     the array by which the program of id 12 reaches its slow paths
//!       link_4            its link to the interface of index 4 (bpffs forbids the dot of `eth0.100`)
//!     v1-new/             being made; becomes v1 by one rename, so that v1 is always whole
//! ```
//!
//! What the maps are, the table of [`shapes`] says.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use super::shapes::{self, Sizes};

/// The program's pin.
pub const PROGRAM: &str = "lb";
const LINK: &str = "link_";
const UNFINISHED: &str = "-new";

/// The names of all maps that are pinned.
pub fn map_names() -> Vec<&'static str> {
    shapes::pinned(&Sizes::default()).iter().map(|shape| shape.name).collect()
}

/// Has the directory these pins, and those of the links to these interfaces?
pub fn are_complete(directory: &Path, names: &[String], interfaces: &[u32]) -> bool {
    names.iter().all(|name| directory.join(name).exists())
        && interfaces.iter().all(|index| link(directory, *index).exists())
}

/// Where a link is pinned.
pub fn link(directory: &Path, interface: u32) -> PathBuf {
    directory.join(format!("{LINK}{interface}"))
}

/// The interface indices that a directory has links of.
pub fn links(directory: &Path) -> anyhow::Result<Vec<u32>> {
    let names = names_in(directory)?;
    Ok(names.iter().filter_map(|name| interface(name)).collect())
}

/// Lets links that were pinned take their places, where a kill came before the rename.
///
/// In their places lies what [`attach`](super::attach) was about to replace: nothing, a dead link, or the same one.
pub fn finish_links(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let Some(index) = name.strip_suffix(UNFINISHED).and_then(interface) else { continue };
        let unfinished = directory.join(&name);
        fs::rename(&unfinished, link(directory, index))
            .with_context(|| format!("rename {}", unfinished.display()))?;
    }
    Ok(())
}

/// The interface that a link of this name is to.
fn interface(name: &str) -> Option<u32> {
    name.strip_prefix(LINK)?.parse().ok()
}

/// Where something is made before it takes its place by a rename.
pub fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED);
    path.with_file_name(name)
}

/// The directories of other layouts beside this one. Their links are named alike.
pub fn other_layouts(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let root = root(directory)?;
    let is_layout = |name: &String| {
        name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
            && Some(name.as_ref()) != directory.file_name()
    };
    Ok(names_in(root)?.iter().filter(|name| is_layout(name)).map(|name| root.join(name)).collect())
}

/// Where the layouts' directories lie.
pub fn root(directory: &Path) -> anyhow::Result<&Path> {
    let root = directory.parent().filter(|root| !root.as_os_str().is_empty());
    root.with_context(|| format!("{} lies in no directory of pins", directory.display()))
}

/// Removes a directory and the pins in it; what was pinned and nobody uses is gone then.
pub fn remove(directory: &Path) -> anyhow::Result<()> {
    for name in names_in(directory)? {
        let path = directory.join(name);
        ensure!(!path.is_dir(), "{} is a directory, and none of ours: remove it by hand", path.display());
        remove_file(&path)?;
    }
    fs::remove_dir(directory).with_context(|| format!("remove {}", directory.display()))
}

/// The directories that there must be for this one and are not, the innermost first.
pub fn missing(directory: &Path) -> Vec<PathBuf> {
    directory
        .ancestors()
        .take_while(|it| !it.as_os_str().is_empty() && !it.exists())
        .map(Path::to_path_buf)
        .collect()
}

/// Removes these directories in turn, up to the first that is in use.
pub fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        match fs::remove_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return,
            Err(error) => return log::warn!("remove {}: {error}", directory.display()),
        }
    }
}

/// Removes a pin, if it is there.
pub fn remove_file(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

/// The names in a directory, in order. None if there is no such directory.
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
    look().with_context(|| format!("look into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_bpffs_follow_the_interface_and_the_directory() {
        let directory = Path::new("/pins/v1");

        assert_eq!(link(directory, 7), Path::new("/pins/v1/link_7"));
        assert_eq!(unfinished(directory), Path::new("/pins/v1-new"));
    }

    #[test]
    fn other_layouts_are_found_beside_ours_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        for name in ["v1", "v2", "v1-new", "v", "valuable", "v10"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }

        let found = other_layouts(&root.path().join("v2")).unwrap();

        assert_eq!(found, [root.path().join("v1"), root.path().join("v10")]);
    }

    #[test]
    fn of_directories_that_were_made_those_that_nobody_uses_are_removed() {
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
    fn links_that_wait_for_their_rename_take_their_places() {
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
        remove(directory.path()).unwrap();
        assert_eq!(links(directory.path()).unwrap(), [0; 0]);
    }
}
