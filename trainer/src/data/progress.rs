//! What the caller hears while data are fetched or read.

/// What the caller hears while files are fetched or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A sentence for the user.
    Line(&'a str),
    /// Number of bytes of a file that are here, and of all its bytes if that is known. The last event of a file has both equal.
    Bytes {
        /// Name of the file.
        file: &'a str,
        /// Number of bytes that are here.
        done: u64,
        /// Number of all bytes, if it is known.
        total: Option<u64>,
    },
    /// Number of images of a folder that are read, and of all files. The last event has both equal.
    Images {
        /// Number of files that are read.
        done: u64,
        /// Number of all files.
        total: u64,
    },
}
