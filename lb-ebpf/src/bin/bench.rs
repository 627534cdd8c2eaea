//! The bench's programs: a wrapper that makes repeated runs honest, floors to compare with, a sink.
//!
//! `BPF_PROG_TEST_RUN` does not restore a packet between repeats: the second run of a balancer would see its own
//! output. The wrapper restores the frame, writes the next flow's tuple into it and jumps to the program under test.
//! Jumping to [`program::floor`] instead is what the wrapper itself costs.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "bench/layout.rs"]
mod layout;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, LruHashMap, ProgramArray},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        cell::fence,
        net::{Be16, Ports, V4, V6},
    };
    use lb_ebpf::{
        family::{Family, Tuple},
        frame::{Cursor, Frame as _, Header},
        headers::{Ethernet, Quoted},
        kernel::frame::XdpFrame,
    };
    use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

    use super::layout::{FRAME_WORDS, MAX_PROGRAMS, Order, Tuple4, Tuple6};

    /// `BPF_F_MMAPABLE`: a million tuples are written without a system call each.
    const MMAPABLE: usize = 1 << 10;
    /// Bytes of an LRU element's value: what a NAT has to keep.
    type Value = [u64; 6];

    #[btf_map]
    static PROGRAMS: ProgramArray<MAX_PROGRAMS> = ProgramArray::new();
    #[btf_map]
    static ORDER: Array<Order, 1> = Array::new();
    #[btf_map]
    static TUPLES4: Array<Tuple4, 1, MMAPABLE> = Array::new();
    #[btf_map]
    static TUPLES6: Array<Tuple6, 1, MMAPABLE> = Array::new();
    #[btf_map]
    static LRU4: LruHashMap<Tuple<V4>, Value, 1> = LruHashMap::new();
    #[btf_map]
    static LRU6: LruHashMap<Tuple<V6>, Value, 1> = LruHashMap::new();

    /// The bytes of a frame, as words that are aligned to nothing.
    #[repr(C, packed)]
    struct Words([u64; FRAME_WORDS]);

    // SAFETY: packed words are aligned to one byte, without padding, and valid for any bits.
    unsafe impl Header for Words {}

    /// Addresses, ports and checksums of an IPv4 frame without options, where they are.
    #[repr(C, packed)]
    struct Fields4 {
        ethernet: [u8; 14],
        version_to_protocol: [u8; 10],
        ip_checksum: u16,
        addresses: [u32; 2],
        ports: u32,
        udp: [u16; 2],
        rest: [u8; 8],
        tcp_checksum: u16,
    }

    /// The same of an IPv6 frame.
    #[repr(C, packed)]
    struct Fields6 {
        ethernet: [u8; 14],
        version_to_hop_limit: [u8; 8],
        addresses: [u64; 4],
        ports: u32,
        udp: [u16; 2],
        rest: [u8; 8],
        tcp_checksum: u16,
    }

    // SAFETY: packed integers, as above.
    unsafe impl Header for Fields4 {}
    // SAFETY: as above.
    unsafe impl Header for Fields6 {}

    /// The next flow's IPv4 packet, to the program that the order names.
    #[xdp]
    pub fn wrap4(ctx: XdpContext) -> u32 {
        next4(&ctx).map_or(xdp_action::XDP_ABORTED, |order| jump(&ctx, order))
    }

    /// The next flow's IPv6 packet, to the program that the order names.
    #[xdp]
    pub fn wrap6(ctx: XdpContext) -> u32 {
        next6(&ctx).map_or(xdp_action::XDP_ABORTED, |order| jump(&ctx, order))
    }

    /// The next flow's IPv4 packet, to whoever is at the other end of the cable.
    #[xdp]
    pub fn generate(ctx: XdpContext) -> u32 {
        next4(&ctx).map_or(xdp_action::XDP_ABORTED, |_| xdp_action::XDP_TX)
    }

    #[inline(always)]
    fn next4(ctx: &XdpContext) -> Option<&'static Order> {
        let (order, number) = restore(ctx)?;
        let tuple = TUPLES4.get(number)?;
        let mut frame = XdpFrame(ctx);
        let fields = frame.cursor().take::<Fields4>().ok()?;
        fields.ip_checksum = tuple.ip_checksum;
        fields.addresses = tuple.addresses;
        fields.ports = tuple.ports;
        if order.is_udp != 0 {
            fields.udp[1] = tuple.checksum;
        } else {
            fields.tcp_checksum = tuple.checksum;
        }
        Some(order)
    }

    #[inline(always)]
    fn next6(ctx: &XdpContext) -> Option<&'static Order> {
        let (order, number) = restore(ctx)?;
        let tuple = TUPLES6.get(number)?;
        let mut frame = XdpFrame(ctx);
        let fields = frame.cursor().take::<Fields6>().ok()?;
        let mut i = 0;
        while i < 4 {
            fields.addresses[i] = tuple.addresses[i];
            fence();
            i += 1;
        }
        fields.ports = tuple.ports;
        if order.is_udp != 0 {
            fields.udp[1] = tuple.checksum;
        } else {
            fields.tcp_checksum = tuple.checksum;
        }
        Some(order)
    }

    /// Restores the frame, and says which tuple is next.
    #[inline(always)]
    fn restore(ctx: &XdpContext) -> Option<(&'static Order, u32)> {
        let order = ORDER.get_ptr_mut(0)?;
        // SAFETY: one CPU at a time runs the bench.
        let order = unsafe { &mut *order };
        let number = order.first + order.next;
        order.next = if order.next + 1 < order.count { order.next + 1 } else { 0 };
        let mut frame = XdpFrame(ctx);
        let words = frame.cursor().take::<Words>().ok()?;
        // Word by word: a copy in one piece would be a call into a loop over bytes.
        let mut i = 0;
        while i < FRAME_WORDS {
            words.0[i] = order.frame[i];
            fence();
            i += 1;
        }
        Some((order, number))
    }

    #[inline(always)]
    fn jump(ctx: &XdpContext, order: &Order) -> u32 {
        // SAFETY: nothing of this frame's is left to be dropped.
        unsafe { PROGRAMS.tail_call(ctx, order.program) };
        xdp_action::XDP_ABORTED
    }

    /// Sends back, and looks at nothing.
    #[xdp]
    pub fn floor(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    /// Passes everything: XDP sends to a veth only if the other end has a program.
    #[xdp]
    pub fn pass(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Drops everything.
    #[xdp]
    pub fn sink(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_DROP
    }

    /// Parses IPv4, and one hit in an LRU hash.
    #[xdp]
    pub fn lru4(ctx: XdpContext) -> u32 {
        let Some(tuple) = parse::<V4>(&ctx) else { return xdp_action::XDP_PASS };
        match LRU4.get_ptr(tuple) {
            Some(_) => xdp_action::XDP_TX,
            None => xdp_action::XDP_DROP,
        }
    }

    /// Parses IPv6, and one hit in an LRU hash.
    #[xdp]
    pub fn lru6(ctx: XdpContext) -> u32 {
        let Some(tuple) = parse::<V6>(&ctx) else { return xdp_action::XDP_PASS };
        match LRU6.get_ptr(tuple) {
            Some(_) => xdp_action::XDP_TX,
            None => xdp_action::XDP_DROP,
        }
    }

    /// Puts an IPv4 tuple into the LRU hash.
    #[xdp]
    pub fn remember4(ctx: XdpContext) -> u32 {
        let Some(tuple) = parse::<V4>(&ctx) else { return xdp_action::XDP_PASS };
        match LRU4.insert(tuple, Value::default(), 0) {
            Ok(()) => xdp_action::XDP_TX,
            Err(_) => xdp_action::XDP_DROP,
        }
    }

    /// Puts an IPv6 tuple into the LRU hash.
    #[xdp]
    pub fn remember6(ctx: XdpContext) -> u32 {
        let Some(tuple) = parse::<V6>(&ctx) else { return xdp_action::XDP_PASS };
        match LRU6.insert(tuple, Value::default(), 0) {
            Ok(()) => xdp_action::XDP_TX,
            Err(_) => xdp_action::XDP_DROP,
        }
    }

    trait Parsed: Family {
        const ETHERTYPE: Be16;
        fn protocol(header: &Self::Header) -> Option<u8>;
    }

    impl Parsed for V4 {
        const ETHERTYPE: Be16 = Ethernet::IPV4;

        #[inline(always)]
        fn protocol(header: &Ipv4Hdr) -> Option<u8> {
            (header.vihl == 0x45).then_some(header.proto)
        }
    }

    impl Parsed for V6 {
        const ETHERTYPE: Be16 = Ethernet::IPV6;

        #[inline(always)]
        fn protocol(header: &Ipv6Hdr) -> Option<u8> {
            (header.vcf[0] >> 4 == 6).then_some(header.next_hdr)
        }
    }

    /// The least that a balancer has to read.
    #[inline(always)]
    fn parse<F: Parsed>(ctx: &XdpContext) -> Option<Tuple<F>> {
        let mut frame = XdpFrame(ctx);
        let mut cursor: Cursor<'_> = frame.cursor();
        let ethernet = cursor.take::<Ethernet>().ok()?;
        if Be16::from_bytes(ethernet.ethertype) != F::ETHERTYPE {
            return None;
        }
        let ip = cursor.take::<F::Header>().ok()?;
        let protocol = F::protocol(ip)?;
        let l4 = cursor.take::<Quoted>().ok()?;
        let (source, destination) = F::addresses(ip);
        let ports = Ports::new(Be16::from_bytes(l4.source), Be16::from_bytes(l4.destination));
        Some(Tuple { source, destination, ports, protocol: u32::from(protocol) })
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
