//! Large receive offload: the network card merges packets before the program sees them.

use std::{io, os::fd::AsRawFd};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_LRO`, `linux/ethtool.h`.
const GET_FLAGS: u32 = 0x25;
const FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`
#[repr(C)]
struct Value {
    command: u32,
    value: u32,
}

nix::ioctl_readwrite_bad!(ethtool, libc::SIOCETHTOOL, libc::ifreq);

/// Does the interface merge packets? False if it does not know the feature.
pub fn is_on(interface: &str) -> io::Result<bool> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command: GET_FLAGS, value: 0 };
    let mut request = libc::ifreq {
        ifr_name: name(interface)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
    };
    // SAFETY: the request and the value that it points to live until the call returns, and GET_FLAGS does not
    // write more than a `Value`.
    match unsafe { ethtool(any.as_raw_fd(), &raw mut request) } {
        Ok(_) => Ok(value.value & FLAG_LRO != 0),
        Err(Errno::EOPNOTSUPP | Errno::ENODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn name(interface: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long for an interface"));
    }
    for (to, from) in name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_does_not_merge_packets() {
        assert!(!is_on("lo").unwrap());
    }
}
