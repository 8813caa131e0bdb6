//! Unix sockets, and the files that name them.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use super::{Listener, Origin, Socket};
use crate::retry::{RETRY_MAX, is_in_use, retry};

impl Listener {
    /// Listens on a Unix stream socket at `path`. A socket that a process has left there which ended
    /// without removing it is replaced. The file has the permissions `mode` before anybody can connect;
    /// without a mode they follow from the umask. It is removed with the last use of the listener.
    /// Retries for 2 seconds while another process listens there.
    ///
    /// # Errors
    /// The kernel's error: `EADDRINUSE` if another process listens there or the file is no socket.
    pub fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        retry(RETRY_MAX, is_in_use, || Self::try_bind_unix(path, mode))
    }

    fn try_bind_unix(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let _held = hold_folder(path)?;
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let address = UnixAddr::new(path)?;
        if let Err(errno) = bind(fd.as_raw_fd(), &address) {
            if errno != Errno::EADDRINUSE || !is_left_behind(path) {
                return Err(errno.into());
            }
            fs::remove_file(path)?;
            bind(fd.as_raw_fd(), &address)?;
        }
        if let Some(mode) = mode {
            // To connect, a process needs the permission to write (unix(7)).
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        listen(&fd, Backlog::MAXALLOWABLE)?;
        let file = Some(file(path)?);
        Ok(Listener(Arc::new(Socket {
            fd,
            path: Some(path.to_owned()),
            origin: Origin::Made { file },
        })))
    }
}

/// Locks the folder of `path` while a server binds its socket there, or removes it. Without the lock, of
/// two servers that replace a third one's socket, the later would remove the socket of the earlier; a
/// socket that is bound but does not listen yet would look left behind, too. A folder that this process
/// cannot open or lock stays unlocked.
///
/// # Errors
/// `EADDRINUSE` if another server holds the lock.
pub(super) fn hold_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Errno::EADDRINUSE.into()),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Whether the file at `path` is a socket that no process listens on any more.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

/// What tells this file from another at the same path.
pub(super) fn file(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process;
    use std::time::Duration;

    use super::*;

    /// A Unix socket is taken by one process at a time, replaced where nobody listens any more, and
    /// removed at the end. Its file has the permissions that were asked for. A file that is no socket stays.
    #[test]
    fn unix_sockets() {
        let folder = env::temp_dir().join(format!("murre-listener-{}", process::id()));
        fs::create_dir_all(&folder).expect("room");
        let path = folder.join("socket");
        let in_use = || Listener::bind_unix(&path, None).expect_err("taken").kind();

        let listener = Listener::bind_unix(&path, None).expect("a new path");
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        listener.give_up_after(Duration::from_secs(1)).expect("nothing to set");
        UnixStream::connect(&path).expect("it listens");
        assert_eq!(in_use(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());

        // A process that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a new path"));
        let listener = Listener::bind_unix(&path, None).expect("nobody listens");
        fs::remove_file(&path).expect("there");
        let newer = Listener::bind_unix(&path, None).expect("free again");
        drop(listener);
        UnixStream::connect(&path).expect("the newer one's file stays");
        drop(newer);

        for mode in [0o600, 0o660, 0o777] {
            let listener = Listener::bind_unix(&path, Some(mode)).expect("free again");
            let permissions = fs::metadata(&path).expect("it is there").permissions();
            assert_eq!(permissions.mode() & 0o7777, mode);
            drop(listener);
        }

        fs::write(&path, "text").expect("room");
        assert_eq!(in_use(), io::ErrorKind::AddrInUse);
        assert!(
            Listener::bind_unix(&folder.join("x".repeat(120)), None).is_err(),
            "too long a path"
        );
        fs::remove_dir_all(&folder).expect("there");
    }

    /// A server binds and removes no socket while another one does in the same folder: it could take a
    /// socket that does not listen yet for one that was left behind, or remove the other's.
    #[test]
    fn servers_bind_one_after_the_other() {
        let folder = env::temp_dir().join(format!("murre-servers-{}", process::id()));
        fs::create_dir_all(&folder).expect("room");
        let path = folder.join("socket");
        let held = hold_folder(&path).expect("nobody binds").expect("it can be locked");
        let error = Listener::try_bind_unix(&path, None).expect_err("another binds");
        assert_eq!((error.kind(), path.exists()), (io::ErrorKind::AddrInUse, false));
        drop(held);
        let listener = Listener::try_bind_unix(&path, None).expect("nobody binds");
        let held = hold_folder(&path).expect("nobody binds");
        drop(listener);
        assert!(path.exists(), "it is left to the next server");
        drop(held);
        drop(Listener::try_bind_unix(&path, None).expect("nobody listens"));
        assert!(!path.exists());
        fs::remove_dir_all(&folder).expect("there");
    }
}
