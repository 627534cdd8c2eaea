//! What the machine with the oldest kernel is made of.

use super::{Cure, Need};
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
            cure: Cure::PortablePackage("qemu-system-x86"),
        },
        Need {
            what: "insmod",
            reason: "brings virtual Ethernet into that kernel",
            is_met: command::find("insmod").is_some(),
            cure: Cure::Package("kmod"),
        },
        Need {
            what: LINUX_PACKAGE,
            reason: "the oldest kernel that xlb promises to run on",
            is_met: Linux::find().is_some(),
            cure: Cure::Unpacked(LINUX_PACKAGE, Linux::unpack),
        },
    ]
}
