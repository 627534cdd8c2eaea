//! The emulated machine with the oldest supported kernel.

use super::{Need, Remedy};
use crate::{
    command,
    vm::{EMULATOR, LINUX_PACKAGE, Linux},
};

pub fn needs() -> Vec<Need> {
    vec![
        Need {
            what: EMULATOR,
            reason: "emulates the machine with the oldest kernel",
            is_met: command::find(EMULATOR).is_some(),
            remedy: Remedy::PortablePackage("qemu-system-x86"),
        },
        Need {
            what: "insmod",
            reason: "loads virtual Ethernet modules into that kernel",
            is_met: command::find("insmod").is_some(),
            remedy: Remedy::PortablePackage("kmod"),
        },
        Need {
            what: LINUX_PACKAGE,
            reason: "the oldest kernel that xlb supports",
            is_met: Linux::find().is_some(),
            remedy: Remedy::Unpacked(LINUX_PACKAGE, Linux::unpack),
        },
    ]
}
