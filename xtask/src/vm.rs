//! An emulated machine with the oldest supported kernel, which runs programs of this host.
//!
//! ```text
//! programs, their files and libraries ─▶ initramfs ─┐
//!                               Linux, its modules ─┴▶ qemu ─▶ init: mount, run each program, print failures, power off
//! ```
//!
//! The machine has no disk: its file system is an initramfs, in which every file has the same path as on the host. So
//! init mounts nothing over a path that may contain the source tree, such as /tmp or /dev. The CPU is emulated, because
//! not every host supports virtualisation: this is slow, but works everywhere, without root.

mod image;
mod linux;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, tree};
use image::Image;
pub use linux::{Linux, PACKAGE as LINUX_PACKAGE};

/// Programs to run in the machine, one after the other, as root.
#[derive(Default)]
pub struct Work {
    /// Command lines. The first word of each is a path of this host.
    pub commands: Vec<Vec<String>>,
    /// Programs that they run.
    pub tools: &'static [&'static str],
    /// Files that they read.
    pub files: Vec<PathBuf>,
    /// Environment variables.
    pub environment: Vec<(&'static str, String)>,
}

/// The machine is stopped after this time, in case its kernel hangs.
const MOST_SECONDS: &str = "1800";
/// If setup unpacked it, it finds its firmware and modules relative to its own path.
pub const EMULATOR: &str = "qemu-system-x86_64";
const SHELL: &str = "/bin/sh";
/// Programs that init uses, besides shell built-ins.
const TOOLS: &[&str] = &["mount", "insmod", "ip"];
/// Character devices that programs open, with their numbers. The kernel creates the console.
const DEVICES: &[(&str, (u32, u32))] =
    &[("/dev/null", (1, 3)), ("/dev/zero", (1, 5)), ("/dev/random", (1, 8)), ("/dev/urandom", (1, 9))];
const END: &str = "vm: programs that failed: ";

impl Work {
    /// The command that starts the machine. Its output is the machine's console.
    pub fn machine(&self) -> Result<Command> {
        let linux =
            Linux::find().context("found no kernel for the emulated machine: run `cargo xtask setup`")?;
        let initramfs = tree::top().join("target/vm/initramfs");
        self.pack(&initramfs, &linux).with_context(|| format!("create {}", initramfs.display()))?;

        let emulator = command::find(EMULATOR)
            .with_context(|| format!("`{EMULATOR}` not found: run `cargo xtask setup`"))?;
        let mut machine = Command::new("timeout");
        machine.arg(MOST_SECONDS).arg(emulator).args(["-nodefaults", "-no-reboot"]);
        machine.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "4096"]);
        machine.args(["-display", "none", "-serial", "stdio"]);
        machine.arg("-kernel").arg(linux.kernel).arg("-initrd").arg(initramfs);
        machine.args(["-append", "console=ttyS0 quiet panic=-1"]);
        Ok(machine)
    }

    fn pack(&self, initramfs: &Path, linux: &Linux) -> Result<()> {
        let mut image = Image::create(initramfs)?;
        for directory in ["/proc", "/run", "/sys", "/tmp"] {
            image.directory(Path::new(directory))?;
        }
        for (path, number) in DEVICES {
            image.device(Path::new(path), *number)?;
        }
        image.program(Path::new(SHELL))?;
        for tool in TOOLS.iter().chain(self.tools) {
            image.program(&command::find(tool).with_context(|| format!("`{tool}` not found"))?)?;
        }
        for program in self.commands.iter().filter_map(|words| words.first()) {
            image.program(program.as_ref())?;
        }
        for file in &self.files {
            image.copy(file)?;
        }
        for module in &linux.modules {
            image.copy(module)?;
        }
        image.file(Path::new("/init"), self.init(linux).as_bytes())?;
        image.finish()
    }

    /// The first process. At the end it powers the machine off and waits for that.
    fn init(&self, linux: &Linux) -> String {
        let insert = |module: &PathBuf| format!("insmod {}\n", quoted(&module.to_string_lossy()));
        let export = |(name, value): &(&str, String)| format!("export {name}={}\n", quoted(value));
        let run = |words: &Vec<String>| {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("{} || failed=$((failed + 1))\n", words.join(" "))
        };
        let modules: String = linux.modules.iter().map(insert).collect();
        let environment: String = self.environment.iter().map(export).collect();
        let commands: String = self.commands.iter().map(run).collect();
        let path = quoted(&command::search_path());
        format!(
            "#!{SHELL}
export PATH={path} HOME=/
mount -t proc none /proc
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
{modules}ip link set lo up
read -r version < /proc/version
echo \"vm: $version\"
failed=0
{environment}{commands}echo \"{END}$failed\"
echo o > /proc/sysrq-trigger
while :; do :; done
"
        )
    }
}

/// The number of failed programs, if this line of the console is the last one that init prints.
pub fn failed(line: &str) -> Option<u64> {
    line.strip_prefix(END)?.parse().ok()
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_mounts_over_no_directory_that_can_hold_a_tree() {
        let script = Work::default().init(&Linux { kernel: "/boot/linux".into(), modules: Vec::new() });

        let mounts: Vec<_> = script.lines().filter(|line| line.starts_with("mount ")).collect();
        let targets: Vec<_> = mounts.iter().filter_map(|line| line.rsplit(' ').next()).collect();

        assert_eq!(targets, ["/proc", "/sys", "/sys/fs/bpf"]);
    }

    #[test]
    fn init_runs_every_program_and_prints_how_many_failed() {
        let work = Work {
            commands: vec![vec!["/a/test".into(), "a name".into()], vec!["/b".into()]],
            environment: vec![("RUNS", "it's 3".into())],
            ..Work::default()
        };

        let script = work.init(&Linux { kernel: "/boot/linux".into(), modules: vec!["/lib/veth.ko".into()] });

        let wanted = "export RUNS='it'\\''s 3'\n'/a/test' 'a name' || failed=$((failed + 1))\n'/b' || failed";
        assert!(script.contains(wanted), "{script}");
        assert!(script.contains("\ninsmod '/lib/veth.ko'\n"), "{script}");
        assert_eq!(failed("vm: programs that failed: 2"), Some(2));
        assert_eq!(failed("test result: ok. 2 passed"), None);
    }
}
