//! `xlb ha`: what a pair of nodes needs besides xlb.

mod keepalived;

use std::path::PathBuf;

use super::{Host, args::HaVerb, console::Console, failure::Failure};
use crate::track_file::TrackFile;

/// `config`: the configuration file. `socket`: that of the daemon.
pub fn ha(
    console: &mut Console<'_>,
    verb: HaVerb,
    config: &dyn Fn(Option<PathBuf>) -> PathBuf,
    socket: Option<PathBuf>,
    host: Host,
) -> Result<(), Failure> {
    match verb {
        HaVerb::Keepalived { file, also, router_id } => {
            let file = config(file);
            let spec = (host.check)(&file)?.spec;
            let socket = socket.unwrap_or_else(|| spec.api.socket.clone());
            let pair = keepalived::Pair {
                file: &file,
                spec: &spec,
                track_file: TrackFile::beside(&socket),
                networks: &(host.networks)()?,
                also: &also,
                router_id,
            };
            console.line(pair.fragment().trim_end())
        }
    }
}
