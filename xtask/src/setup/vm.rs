//! What the machine with the oldest kernel is made of.

use super::{Cure, Need};
use crate::{
    command,
    vm::{LINUX_PACKAGE, Linux},
};

pub fn needs() -> Vec<Need> {
    vec![
        Need {
            what: "qemu-system-x86_64",
            reason: "emulates the machine with the oldest kernel",
            is_met: command::find("qemu-system-x86_64").is_some(),
            cure: Cure::Package("qemu-system-x86"),
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
            cure: Cure::Unpacked(Linux::unpack),
        },
    ]
}
