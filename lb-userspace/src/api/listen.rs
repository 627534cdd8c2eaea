//! The daemon's listeners. Listening is separate from serving, so that the daemon finds errors before it changes anything.

mod pending;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use tokio::net::{UnixListener, UnixStream};

pub use self::pending::{Part, Pending};
use crate::exit::Exit;

/// Members of this group may operate xlb.
pub const GROUP: &str = "xlb";
const MODE: u32 = 0o660;

/// Why listening failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process accepts connections on the socket.
    #[error("cannot listen on {0}: a running daemon uses it (choose another with --socket or XLB_SOCKET)")]
    Live(PathBuf),
    /// A file or directory that the daemon did not create. It is not touched.
    #[error("cannot listen on {0}: it exists and is not a socket (remove it or give another path)")]
    NotASocket(PathBuf),
    /// Another process uses the address.
    #[error(
        "cannot listen on {0}: address in use (`ss -ltnp` shows the process; `listen` in {1} changes the \
         address)"
    )]
    AddressInUse(SocketAddr, Part),
    /// An address that no interface has, or that IPv6 has not yet confirmed as unique.
    #[error(
        "cannot listen on {0}: not an address of this host (`ip address show` lists them; `listen` in {1} changes \
         the address)"
    )]
    AddressNotAvailable(SocketAddr, Part),
    /// Any other error.
    #[error("cannot listen on {place}: cannot {doing}: {source}")]
    Io {
        /// The socket's path, or the address.
        place: String,
        /// The step that failed, as a verb: "bind", "chmod".
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// The exit code of `xlb run`.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Live(_) | Self::AddressInUse(..) => Exit::Conflict,
            Self::NotASocket(_) | Self::AddressNotAvailable(..) | Self::Io { .. } => Exit::Failed,
        }
    }
}

/// The control socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Binds the control socket: mode 0660, group `xlb` if it exists.
pub async fn socket(path: &Path) -> Result<Socket, Error> {
    let failed = |doing| {
        let place = path.display().to_string();
        move |source| Error::Io { place, doing, source }
    };

    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("create its directory"))?;
    }
    refuse_if_taken(path).await?;

    // Bound under another name and renamed: `path` never has a socket with the wrong owner or mode, and the file
    // of a dead daemon is replaced atomically.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(name);
    let _absent = fs::remove_file(&unfinished); // of a daemon that had this pid and died here
    let listener = UnixListener::bind(&unfinished).map_err(failed("bind"))?;
    let inode = fs::metadata(&unfinished).map_err(failed("stat"))?.ino();
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(MODE)).map_err(failed("chmod"))?;
    give_to_group(&unfinished);
    fs::rename(&unfinished, path).map_err(failed("rename"))?;
    Ok(Socket { listener, path: path.to_owned(), inode })
}

/// A socket file without a listener was left by a daemon that died.
async fn refuse_if_taken(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Io { place: path.display().to_string(), doing: "stat", source }),
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_socket) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(_) | Ok(_) => Err(Error::Live(path.to_owned())),
    }
}

/// Otherwise only root can use the socket, which is safe, so a failure is only logged.
fn give_to_group(path: &Path) {
    let given = match Group::from_name(GROUP) {
        Ok(Some(group)) => chown(path, None, Some(group.gid.as_raw())),
        Ok(None) => Ok(()),
        Err(errno) => Err(errno.into()),
    };
    if let Err(error) = given {
        log::warn!(path:% = path.display(), error:%; "cannot change the group of the socket to {GROUP}");
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            log::warn!(path:% = self.path.display(), error:%; "cannot remove the socket");
        }
    }
}
