//! Default paths. A flag overrides the environment, which overrides the file, which overrides these.

use std::path::PathBuf;

/// The configuration: `--config`, then `XLB_CONFIG`, then this.
pub const CONFIG: &str = "/etc/xlb/xlb.toml";
/// The control socket: `--socket`, then `XLB_SOCKET`, then `[api] socket`, then this.
pub const SOCKET: &str = "/run/xlb/xlb.sock";
/// The directory of changes made by commands. systemd creates it (`StateDirectory=`).
pub const STATE: &str = "/var/lib/xlb";
/// The metrics address, unless `[metrics] listen` sets another.
pub const METRICS: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9191);
/// The directory of pins, which must be on a bpffs.
pub const PINS: &str = "/sys/fs/bpf/xlb";
/// Where keepalived expects its configuration.
pub const KEEPALIVED: &str = "/etc/keepalived/keepalived.conf";

/// `XLB_PINS` (default [`PINS`]).
pub fn pins() -> PathBuf {
    from_env("XLB_PINS", PINS)
}

/// `XLB_STATE` (default [`STATE`]).
pub fn state() -> PathBuf {
    from_env("XLB_STATE", STATE)
}

/// Empty counts as unset, as for `XLB_CONFIG` and `XLB_SOCKET`.
fn from_env(name: &str, default: &str) -> PathBuf {
    let given = std::env::var_os(name).filter(|value| !value.is_empty());
    given.map_or_else(|| PathBuf::from(default), PathBuf::from)
}
