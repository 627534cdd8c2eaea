//! Who can change a file, or put another in its place: those who can write to it, to a directory on the way to it, or to a
//! directory that has a symbolic link on the way.

use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{self, Component, Path, PathBuf},
};

use crate::text::printable;

/// As many as the kernel follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An error if others than root and this user can change what is at this path.
pub fn check(path: &Path, user: u32) -> io::Result<()> {
    let mut at = PathBuf::from("/");
    let mut rest = names(&path::absolute(path)?);
    let mut links = 0;
    judge(&at, &fs::symlink_metadata(&at)?, user)?;
    while let Some(name) = rest.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let entry = at.join(name);
        let metadata = fs::symlink_metadata(&entry)?;
        judge(&entry, &metadata, user)?;
        if !metadata.is_symlink() {
            at = entry;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        let target = fs::read_link(&entry)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(names(&target));
    }
    Ok(())
}

/// The last comes first.
fn names(path: &Path) -> Vec<OsString> {
    let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components().filter(is_name).map(|part| part.as_os_str().to_owned()).rev().collect()
}

fn judge(entry: &Path, metadata: &Metadata, user: u32) -> io::Result<()> {
    if can_others_change(metadata.uid(), metadata.mode(), user) {
        let entry = printable(&entry.display().to_string());
        return Err(io::Error::other(format!(
            "others can change `{entry}`: run `chown root: {entry}` and `chmod go-w {entry}`"
        )));
    }
    Ok(())
}

/// Others than root and this user. In a sticky directory, only the owner of an entry can replace it, and each entry on the
/// way is judged, too. The mode of a symbolic link means nothing. An access list counts: its mask is the group's part of the
/// mode (acl(5)).
const fn can_others_change(owner: u32, mode: u32, user: u32) -> bool {
    let is_ours = owner == 0 || owner == user;
    let is_sticky_directory = mode & file_type::MASK == file_type::DIRECTORY && mode & STICKY != 0;
    let is_link = mode & file_type::MASK == file_type::LINK;
    !is_ours || (mode & WRITABLE_BY_OTHERS != 0 && !is_sticky_directory && !is_link)
}

/// The types of files in a mode (inode(7)).
mod file_type {
    pub const MASK: u32 = 0o170_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const LINK: u32 = 0o120_000;
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{Permissions, set_permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_file_that_others_can_replace_is_not_safe() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("file");
        fs::write(&file, "").unwrap();
        for (inner_mode, mode, culprit) in [
            (0o755, 0o755, None),
            (0o755, 0o700, None),
            (0o1777, 0o755, None),
            (0o755, 0o775, Some(&file)),
            (0o755, 0o757, Some(&file)),
            (0o1777, 0o757, Some(&file)),
            (0o775, 0o755, Some(&inner)),
            (0o757, 0o755, Some(&inner)),
        ] {
            set_permissions(&inner, Permissions::from_mode(inner_mode)).unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();

            let why = check(&file, geteuid().as_raw()).err().map(|error| error.to_string());

            let expected = culprit.map(|it| {
                let it = it.display();
                format!("others can change `{it}`: run `chown root: {it}` and `chmod go-w {it}`")
            });
            assert_eq!(why, expected, "{inner_mode:o} {mode:o}");
        }
    }

    #[test]
    fn the_way_through_a_link_counts_and_so_does_the_place_of_the_link() {
        let directory = tempfile::tempdir().unwrap();
        let [safe, open] = ["safe", "open"].map(|name| directory.path().join(name));
        for place in [&safe, &open] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("file"), "").unwrap();
        }
        symlink("../open/file", safe.join("to-open")).unwrap();
        symlink("../safe/file", open.join("to-safe")).unwrap();
        symlink(&safe, directory.path().join("short")).unwrap();
        symlink("loop", safe.join("loop")).unwrap();
        set_permissions(&open, Permissions::from_mode(0o777)).unwrap();

        let is_safe = |path: PathBuf| check(&path, geteuid().as_raw()).is_ok();

        assert!(is_safe(safe.join("file")));
        assert!(is_safe(directory.path().join("short/file")));
        assert!(!is_safe(open.join("../open/file")));
        assert!(!is_safe(safe.join("to-open")));
        assert!(!is_safe(open.join("to-safe")));
        assert!(!is_safe(safe.join("loop")));
        assert!(!is_safe(safe.join("missing")));
    }

    #[test]
    fn what_belongs_to_another_user_can_be_changed_by_that_user() {
        for (owner, mode, is_bad) in [
            (0, 0o100_755, false),
            (1000, 0o100_755, false),
            (1001, 0o100_755, true),
            (1001, 0o100_555, true),
            (0, 0o100_775, true),
            (1000, 0o101_757, true),
            (0, 0o041_777, false),
            (1001, 0o041_777, true),
            (0, 0o120_777, false),
            (1001, 0o120_777, true),
        ] {
            assert_eq!(can_others_change(owner, mode, 1000), is_bad, "{owner} {mode:o}");
        }
    }
}
