//! `xlb ha`: its commands and options.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use clap::Subcommand;
use ipnet::IpNet;

use super::{MOST_WAIT, wait};
use crate::duration;

/// The daemon writes the track file every 10 s.
const LEAST_GRACE: Duration = Duration::from_secs(15);

#[derive(Debug, Subcommand)]
pub enum HaVerb {
    /// Print a configuration for keepalived that moves the addresses of all services between two nodes
    Keepalived {
        /// Configuration file [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
        /// A further address that moves with them, like the gateway of backends in nat mode; may be repeated
        #[arg(long, value_name = "ADDRESS/LENGTH")]
        also: Vec<IpNet>,
        /// The VRRP router ID, which no other pair on the link may have
        #[arg(long, value_name = "ID", default_value_t = 51, value_parser = clap::value_parser!(u8).range(1..))]
        router_id: u8,
    },
    /// Print a configuration for BIRD 2 that announces the addresses of ready services by BGP (needs `[announce]`)
    Bird {
        /// Configuration file [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
        /// The address of a router; may be repeated, and each family of the services needs one
        #[arg(long, value_name = "ADDRESS", required = true)]
        neighbor: Vec<IpAddr>,
        /// The number of this node's autonomous system
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        local_as: u32,
        /// The number of the routers' autonomous system
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        neighbor_as: u32,
        /// The BGP identifier of this node [default: an IPv4 address of its interfaces]
        #[arg(long, value_name = "A.B.C.D")]
        router_id: Option<Ipv4Addr>,
    },
    /// Look for what would make a take-over fail, on this host and between the nodes (exit 1 if there is any)
    Check {
        /// Configuration file [env: XLB_CONFIG] [default: /etc/xlb/xlb.toml]
        file: Option<PathBuf>,
    },
    #[command(flatten)]
    Node(NodeVerb),
}

/// What the daemon does about this node.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Take the service addresses off this node, and wait until they have left it
    Drain {
        /// Wait at most T
        #[arg(long, value_name = "T", default_value = "60s", value_parser = wait)]
        wait: Duration,
    },
    /// End the drain of this node
    Ready {
        /// Change nothing: exit 0 if the daemon has written the track file in the last T, else 1 (for a script of keepalived)
        #[arg(long, value_name = "T", value_parser = grace)]
        grace: Option<Duration>,
    },
}

fn grace(text: &str) -> Result<Duration, String> {
    duration::parse(text, LEAST_GRACE..=MOST_WAIT)
}
