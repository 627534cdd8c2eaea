//! Reads and writes map elements as bytes. aya needs types, and other versions have other types.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// `bpf_attr` of the commands for elements.
#[repr(C)]
struct Element {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const NEXT_KEY: libc::c_int = 4;

/// Reads a value, or those of all CPUs for a per-CPU map. `false`: there is none.
pub fn lookup(map: impl AsFd, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    found(call(LOOKUP, map, key.as_ptr(), value.as_mut_ptr()))
}

/// Writes a value.
pub fn update(map: impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    call(UPDATE, map, key.as_ptr(), value.as_ptr().cast_mut())
}

/// Reads the key after `key`, or the first one. `false`: there is none.
pub fn next_key(map: impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    found(call(NEXT_KEY, map, key.map_or(std::ptr::null(), <[u8]>::as_ptr), next.as_mut_ptr()))
}

fn found(outcome: io::Result<()>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn call(command: libc::c_int, map: impl AsFd, key: *const u8, value: *mut u8) -> io::Result<()> {
    let map = map.as_fd().as_raw_fd().cast_unsigned();
    let attributes = Element { map, zero: 0, key: key as u64, value: value as u64, flags: 0 };
    // SAFETY: the kernel reads the attributes and the bytes of key and value, and callers give buffers of the
    // map's sizes. It writes to `value` only for commands whose callers have it mutable.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Element>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
