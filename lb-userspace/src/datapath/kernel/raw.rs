//! Reads and writes map elements as bytes, because aya needs types and other versions have other types. Also creates maps of
//! maps, which aya creates only from an object.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
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

/// `bpf_attr` of the command that creates a map.
#[repr(C)]
struct Create {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner: u32,
}

const CREATE: libc::c_int = 0;
const LOOKUP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const NEXT_KEY: libc::c_int = 4;

/// Creates an array with one element of 4 bytes. `inner`: an example of the maps in an array of maps.
pub fn create_array(kind: u32, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let inner = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    let attributes = Create { kind, key_bytes: 4, value_bytes: 4, entries: 1, flags: 0, inner };
    // SAFETY: the kernel only reads the attributes.
    let map = unsafe { libc::syscall(libc::SYS_bpf, CREATE, &raw const attributes, size_of::<Create>()) };
    if map < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened the file descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(map as libc::c_int) })
}

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
