//! Where the tool keeps its key and the keys of others, and how such files are written: readable
//! by their owner only, and never over an existing file.

use crate::exit::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The folder: `$TRUNKLINE_HOME`, else `$XDG_CONFIG_HOME/trunkline`, else `~/.config/trunkline`.
pub fn folder() -> Result<PathBuf, Failure> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("TRUNKLINE_HOME")
        .or_else(|| var("XDG_CONFIG_HOME").map(|p| p.join("trunkline")))
        .or_else(|| var("HOME").map(|p| p.join(".config/trunkline")))
        .ok_or_else(|| {
            Failure::local("neither TRUNKLINE_HOME nor HOME is set: no place to keep keys")
        })
}

/// Our own key and certificate.
pub fn identity_path() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("identity.pem"))
}

/// The keys of the peers that the user has accepted.
pub fn known_peers_path() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("known_peers"))
}

/// Creates the folder of `path` (mode 0700 where it is new).
pub fn make_folder_of(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(parent)
}

/// Opens `path` for writing, only if there is nothing of that name (not even a dangling link).
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    set_mode(&mut options, mode);
    options.open(path)
}

/// Writes `content` to a new file that becomes visible under `path` as a whole; fails with
/// [`io::ErrorKind::AlreadyExists`] rather than touch what is there.
pub fn publish(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    make_folder_of(path)?;
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".new-{}", std::process::id()));
    let temp = PathBuf::from(temp);
    let _ = fs::remove_file(&temp);
    let written = create_new(&temp, mode).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let linked = written.and_then(|()| rename_new(&temp, path));
    if linked.is_err() {
        let _ = fs::remove_file(&temp);
    }
    linked
}

/// Renames `from` to `to` in one step that never replaces anything: a hard link, which fails when
/// the name is taken, then the old name goes. File systems without hard links get the name
/// reserved by an empty file first.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(e),
        Err(e) if no_hard_links(&e) => {
            drop(create_new(to, 0o600)?);
            fs::rename(from, to)
        }
        Err(e) => Err(e),
    }
}

/// Whether a failed `link` means that the file system has no hard links at all (FAT, some network
/// and FUSE file systems say EPERM, ENOTSUP or ENOSYS).
fn no_hard_links(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
        || e.raw_os_error() == Some(libc::ENOSYS)
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, mode: u32) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(mode);
}

#[cfg(not(unix))]
fn set_mode(_: &mut OpenOptions, _: u32) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn publish_never_replaces() {
        let dir = Scratch::new();
        let path = dir.path().join("deep/er/key.pem");
        publish(&path, b"one", 0o600).unwrap();
        let again = publish(&path, b"two", 0o600).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn secret_files_are_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = Scratch::new();
        let path = dir.path().join("sub/key.pem");
        publish(&path, b"secret", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let parent = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(parent.permissions().mode() & 0o777, 0o700);
    }

    #[cfg(unix)]
    #[test]
    fn dangling_links_count_as_taken() {
        let dir = Scratch::new();
        let outside = dir.path().join("outside");
        let name = dir.path().join("name");
        std::os::unix::fs::symlink(&outside, &name).unwrap();
        let from = dir.path().join("from");
        fs::write(&from, b"x").unwrap();
        assert_eq!(rename_new(&from, &name).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!outside.exists());
    }
}
