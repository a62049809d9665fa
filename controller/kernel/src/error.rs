//! Errors, in the words of `headgate_datapath::kernel::KernelError`.

use std::io;

use headgate_datapath::kernel::KernelError;

/// Says what was asked of the kernel when it refused.
pub(crate) trait Asked<T> {
    /// `what` in words, as the beginning of a sentence that ends in the kernel's answer.
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T> Asked<T> for io::Result<T> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM) => not_permitted(&what()),
            Some(libc::EROFS) => read_only(&what()),
            _ => KernelError::Call {
                what: what(),
                source,
            },
        })
    }
}

pub(crate) fn unusable(what: impl Into<String>, remedy: impl Into<String>) -> KernelError {
    KernelError::Unusable {
        what: what.into(),
        remedy: remedy.into(),
    }
}

fn not_permitted(what: &str) -> KernelError {
    unusable(
        format!("{what} is not permitted"),
        "run with CAP_SYS_ADMIN in the initial user namespace, and with kernel lockdown off or at `integrity`",
    )
}

fn read_only(what: &str) -> KernelError {
    unusable(
        format!("{what} failed, the BPF file system is read-only"),
        "remount it with `mount -o remount,rw PATH`",
    )
}

/// Whether the answer says that what was asked for is not there.
pub(crate) fn absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// What `read` finds, or `None` where it finds nothing; every other failure stays one.
pub(crate) fn if_present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An errno with its name, as `ip` and `strace` users know it.
pub(crate) fn errno_text(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP",
        Some(libc::ERANGE) => "ERANGE",
        Some(libc::ENOMEM) => "ENOMEM",
        Some(libc::ENOSPC) => "ENOSPC",
        Some(libc::E2BIG) => "E2BIG",
        Some(libc::EIO) => "EIO",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENETDOWN) => "ENETDOWN",
        Some(libc::ENXIO) => "ENXIO",
        _ => return error.to_string(),
    };
    format!("{name}: {error}")
}
