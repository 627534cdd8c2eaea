//! Types shared by the benchmark and its BPF programs.

/// Words of a frame: enough for Ethernet, IPv6, TCP and some data.
pub const FRAME_WORDS: usize = 10;

/// Programs that the wrapper can jump to.
pub const MAX_PROGRAMS: usize = 4;

/// What the wrapper does next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// The number of a program.
    pub program: u32,
    /// The first tuple.
    pub first: u32,
    /// How many tuples there are in turn.
    pub count: u32,
    /// Which of them is next.
    pub next: u32,
    /// 1: the frame is UDP, else TCP.
    pub is_udp: u32,
    /// Zero.
    pub zero: u32,
    /// What every frame is restored to.
    pub frame: [u64; FRAME_WORDS],
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers without padding.
unsafe impl aya::Pod for Order {}

/// What one IPv4 flow puts into the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuple4 {
    /// Source and destination, as they lie in a packet.
    pub addresses: [u32; 2],
    /// Both ports.
    pub ports: u32,
    /// The header's checksum.
    pub ip_checksum: u16,
    /// TCP's or UDP's.
    pub checksum: u16,
}

/// What one IPv6 flow puts into the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tuple6 {
    /// Source and destination, as they lie in a packet.
    pub addresses: [u64; 4],
    /// Both ports.
    pub ports: u32,
    /// TCP's or UDP's.
    pub checksum: u16,
    /// Zero.
    pub zero: u16,
}
