//! Random bytes from the kernel.

use std::{
    fs::File,
    io::{self, Read as _},
};

/// Bytes that cannot be guessed.
pub fn bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
