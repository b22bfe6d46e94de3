use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// A file system as an uncompressed tar, owned by root, without times: the same files give the same bytes.
pub(super) fn of(rootfs: &Path) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    add(&mut tar, rootfs, Path::new("")).with_context(|| format!("packing {}", rootfs.display()))?;
    tar.into_inner().context("packing the layer")
}

fn add(tar: &mut Builder<Vec<u8>>, rootfs: &Path, folder: &Path) -> Result<()> {
    for path in children(rootfs, folder)? {
        let full = rootfs.join(&path);
        let kind = fs::symlink_metadata(&full)?.file_type();
        if kind.is_dir() {
            let mut header = header(EntryType::Directory, 0);
            tar.append_data(&mut header, &path, &[][..])?;
            add(tar, rootfs, &path)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&full)?;
            tar.append_link(&mut header(EntryType::Symlink, 0), &path, &target)?;
        } else {
            let bytes = fs::read(&full)?;
            tar.append_data(&mut header(EntryType::Regular, bytes.len() as u64), &path, &bytes[..])?;
        }
    }
    Ok(())
}

/// In the order of their names: a folder is listed in any.
fn children(rootfs: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(rootfs.join(folder))? {
        children.push(folder.join(entry?.file_name()));
    }
    children.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok(children)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Symlink { 0o777 } else { 0o755 });
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
