//! File systems on which changes happen that this machine's operating system does not tell of.

use std::path::Path;

/// The kind of file system that holds `path`, if others may change what is there without a word: other machines, the host
/// of a virtual machine, a program behind it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)]
pub(super) fn file_system(path: &Path) -> Option<&'static str> {
    use std::os::unix::ffi::OsStrExt;

    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends with a zero and `about` has room for what is written there; both live through the call.
    if unsafe { libc::statfs(path.as_ptr(), about.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, and then it has filled the whole struct.
    let kind = unsafe { about.assume_init() }.f_type;
    // 32 bits wherever the field is wider or signed.
    name(kind as u32)
}

/// From include/uapi/linux/magic.h and the file systems' own sources.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x6969 => "NFS",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x6573_5546 => "FUSE",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x786f_4256 => "VirtualBox's shared folders",
        0xbacb_acbc => "VMware's shared folders",
        _ => return None,
    })
}

/// Nobody asks here: macOS and Windows tell of changes through the programs that make them.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn file_system(_path: &Path) -> Option<&'static str> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_local_folder_tells_of_its_changes_and_a_network_file_system_does_not() {
        // Kept by the kernel itself, whatever the machine.
        assert_eq!(file_system(Path::new("/proc")), None);
        assert_eq!(file_system(Path::new("/nothing/here")), None);
        assert_eq!((name(0x6969), name(0xff53_4d42), name(0xef53)), (Some("NFS"), Some("SMB"), None));
    }
}
