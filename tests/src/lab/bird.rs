//! BIRD on a host of the lab.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use super::{Lab, Namespace, daemon::binary, process::Program};

/// For sessions of routers, as `xlb ha bird` prints it for nodes.
pub const PROTOCOL_OPTIONS: &str =
    "direct; bfd on; hold time 9; connect delay time 0; connect retry time 1; error wait time 1, 2;";

/// The daemon. Dropping it kills it.
pub struct Bird {
    namespace: Namespace,
    config: String,
    /// Its files have this path, with other endings.
    path: PathBuf,
    program: Program,
}

impl Bird {
    /// Starts it with this configuration.
    pub fn start(lab: &Lab, namespace: &Namespace, name: &str, configuration: &str) -> Result<Self> {
        let config = Self::check(lab, namespace, name, configuration)?;
        let path = lab.directory().join(format!("bird-{name}"));
        let mut bird = Self { namespace: namespace.clone(), config, path, program: Program::default() };
        bird.start_again()?;
        Ok(bird)
    }

    /// Starts it after [`Self::kill`].
    pub fn start_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path.with_extension("log"))?;
        let mut command = self.namespace.command("bird");
        command.args(["-f", "-c", &self.config]);
        command.arg("-s").arg(self.path.with_extension("ctl")).arg("-P").arg(self.path.with_extension("pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.program = command.spawn().context("start bird; `cargo xtask setup` installs it")?.into();
        Ok(())
    }

    /// Kills it at once. Its host keeps its routes and addresses.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Lets it outlive this process.
    pub fn leave_running(self) {
        self.program.leave_running();
    }

    /// The file with this configuration, which BIRD takes.
    pub fn check(lab: &Lab, namespace: &Namespace, name: &str, configuration: &str) -> Result<String> {
        let path = lab.directory().join(format!("bird-{name}.conf"));
        fs::write(&path, configuration)?;
        let config = path.display().to_string();
        let test = namespace.output(&["bird", "-p", "-c", &config])?;
        ensure!(test.code == 0, "BIRD refuses the configuration: {test:?}");
        Ok(config)
    }

    /// The sessions that are up, with the time since when they are.
    pub fn sessions(&self) -> Result<Vec<String>> {
        let socket = self.path.with_extension("ctl").display().to_string();
        let shown = self.namespace.run(&["birdc", "-s", &socket, "show", "protocols"])?;
        Ok(shown.lines().filter(|line| line.contains("Established")).map(str::to_owned).collect())
    }
}

/// What `xlb ha bird` prints for a node with this file, at the lab's router, whose number is 65000.
pub fn printed(node: &Namespace, file: &Path, local_as: &str) -> Result<String> {
    let (program, config) = (binary()?.display().to_string(), file.display().to_string());
    let routers = ["--neighbor", "192.0.2.254", "--neighbor", "2001:db8::fe"];
    let systems = ["--local-as", local_as, "--neighbor-as", "65000"];
    node.run(&[&[&*program, "ha", "bird", &config], &routers[..], &systems[..]].concat())
}
