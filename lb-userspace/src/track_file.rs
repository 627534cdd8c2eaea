//! The track file: a number that keepalived adds to this node's priority (`vrrp_track_file`).
//!
//! It outlives the daemon. When the daemon dies, traffic flows, so no address must move.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// This node must not have the service addresses. keepalived takes this for a fault.
pub const UNFIT: i16 = -254;
/// How long the data plane is kept after that: keepalived follows within 60 ms, measured with its 2.2.7.
pub const HANDOVER: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub struct TrackFile(PathBuf);

impl TrackFile {
    /// `/run/xlb/ready`, if the socket is `/run/xlb/xlb.sock`.
    pub fn beside(socket: &Path) -> Self {
        Self(socket.with_file_name("ready"))
    }

    /// Replaces it as a whole, so that no reader sees half a number.
    pub fn write(&self, value: i16) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        // A crash may have left one, with any owner.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::create_new(&temporary)?;
        file.write_all(format!("{value}\n").as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&temporary, &self.0)
    }

    /// `None`: there is none, or it has no number.
    pub fn read(&self) -> Option<i16> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// When it was last written. A daemon that lives writes it every few seconds.
    pub fn written(&self) -> Option<SystemTime> {
        fs::metadata(&self.0).ok()?.modified().ok()
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_next_to_the_socket_and_everyone_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = TrackFile::beside(&directory.path().join("xlb.sock"));
        assert_eq!(file.read(), None);

        file.write(-3).unwrap();
        file.write(UNFIT).unwrap();

        assert_eq!(fs::read_to_string(directory.path().join("ready")).unwrap(), "-254\n");
        assert_eq!(file.read(), Some(UNFIT));
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
