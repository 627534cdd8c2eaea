//! The bench's programs: a wrapper that restores the packet between runs, baseline programs to compare with, and a
//! sink.
//!
//! `BPF_PROG_TEST_RUN` does not restore a packet between repeats: the second run of a balancer would see its own
//! output. The wrapper restores the frame, writes the next flow's tuple into it and jumps to the program under test.
//! Jumping to [`program::floor`] instead measures the cost of the wrapper itself.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

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
        kernel::frame::XdpFrame,
        packet::frame::{Cursor, Frame as _, Header},
        packet::headers::{Ethernet, Quoted},
        packet::parse::Ip,
    };
    use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

    use tests_ebpf::bench::{FRAME_WORDS, MAX_PROGRAMS, Order, Tuple4, Tuple6};

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

    /// An IPv4 frame without options, up to its addresses.
    #[repr(C, packed)]
    struct Fields4 {
        ethernet: [u8; 14],
        version_to_protocol: [u8; 10],
        checksum: u16,
        addresses: [u32; 2],
    }

    /// The same of IPv6.
    #[repr(C, packed)]
    struct Fields6 {
        ethernet: [u8; 14],
        version_to_hop_limit: [u8; 8],
        addresses: [u64; 4],
    }

    /// Ports, and where the checksum is: of a UDP packet, or of a TCP packet.
    #[repr(C, packed)]
    struct Ending {
        ports: u32,
        length: u16,
        udp_checksum: u16,
        rest: [u8; 8],
        tcp_checksum: u16,
    }

    // SAFETY: packed integers, as above.
    unsafe impl Header for Fields4 {}
    // SAFETY: as above.
    unsafe impl Header for Fields6 {}
    // SAFETY: as above.
    unsafe impl Header for Ending {}

    /// Writes the next flow's IPv4 packet and jumps to the selected program.
    #[xdp]
    pub fn wrap4(ctx: XdpContext) -> u32 {
        next::<V4>(&ctx).map_or(xdp_action::XDP_ABORTED, |order| jump(&ctx, order))
    }

    /// Writes the next flow's IPv6 packet and jumps to the selected program.
    #[xdp]
    pub fn wrap6(ctx: XdpContext) -> u32 {
        next::<V6>(&ctx).map_or(xdp_action::XDP_ABORTED, |order| jump(&ctx, order))
    }

    /// Writes the next flow's IPv4 packet and sends it to the other end of the veth.
    #[xdp]
    pub fn generate(ctx: XdpContext) -> u32 {
        next::<V4>(&ctx).map_or(xdp_action::XDP_ABORTED, |_| xdp_action::XDP_TX)
    }

    /// Writes the next flow's packet.
    #[inline(always)]
    fn next<F: Benched>(ctx: &XdpContext) -> Option<&'static Order> {
        let (order, number) = restore(ctx)?;
        let mut frame = XdpFrame::new(ctx);
        let mut cursor = frame.cursor();
        let (ports, checksum) = F::address(&mut cursor, number)?;
        let ending = cursor.take::<Ending>().ok()?;
        ending.ports = ports;
        if order.is_udp != 0 {
            ending.udp_checksum = checksum;
        } else {
            ending.tcp_checksum = checksum;
        }
        Some(order)
    }

    /// Restores the frame, and returns the index of the next tuple.
    #[inline(always)]
    fn restore(ctx: &XdpContext) -> Option<(&'static Order, u32)> {
        let order = ORDER.get_ptr_mut(0)?;
        // SAFETY: one CPU at a time runs the bench.
        let order = unsafe { &mut *order };
        let number = order.first + order.next;
        order.next = if order.next + 1 < order.count { order.next + 1 } else { 0 };
        let mut frame = XdpFrame::new(ctx);
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

    /// Sends the frame back unread.
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
        with_tuple::<V4>(&ctx, |tuple| LRU4.get_ptr(tuple).is_some())
    }

    /// Parses IPv6, and one hit in an LRU hash.
    #[xdp]
    pub fn lru6(ctx: XdpContext) -> u32 {
        with_tuple::<V6>(&ctx, |tuple| LRU6.get_ptr(tuple).is_some())
    }

    /// Puts an IPv4 tuple into the LRU hash.
    #[xdp]
    pub fn remember4(ctx: XdpContext) -> u32 {
        with_tuple::<V4>(&ctx, |tuple| LRU4.insert(tuple, Value::default(), 0).is_ok())
    }

    /// Puts an IPv6 tuple into the LRU hash.
    #[xdp]
    pub fn remember6(ctx: XdpContext) -> u32 {
        with_tuple::<V6>(&ctx, |tuple| LRU6.insert(tuple, Value::default(), 0).is_ok())
    }

    /// Sends a packet back if `has` is true for its tuple.
    #[inline(always)]
    fn with_tuple<F: Benched>(ctx: &XdpContext, has: impl FnOnce(Tuple<F>) -> bool) -> u32 {
        match parse(ctx).map(has) {
            Some(true) => xdp_action::XDP_TX,
            Some(false) => xdp_action::XDP_DROP,
            None => xdp_action::XDP_PASS,
        }
    }

    /// What differs between the families.
    trait Benched: Family {
        fn protocol(header: &Self::Header) -> Option<u8>;
        /// Writes a flow's addresses. Returns its ports, and the checksum of TCP or UDP.
        fn address(cursor: &mut Cursor<'_>, flow: u32) -> Option<(u32, u16)>;
    }

    impl Benched for V4 {
        #[inline(always)]
        fn protocol(header: &Ipv4Hdr) -> Option<u8> {
            (header.vihl == 0x45).then_some(header.proto)
        }

        #[inline(always)]
        fn address(cursor: &mut Cursor<'_>, flow: u32) -> Option<(u32, u16)> {
            let tuple = TUPLES4.get(flow)?;
            let fields = cursor.take::<Fields4>().ok()?;
            fields.checksum = tuple.ip_checksum;
            fields.addresses = tuple.addresses;
            Some((tuple.ports, tuple.checksum))
        }
    }

    impl Benched for V6 {
        #[inline(always)]
        fn protocol(header: &Ipv6Hdr) -> Option<u8> {
            (header.vcf[0] >> 4 == 6).then_some(header.next_hdr)
        }

        #[inline(always)]
        fn address(cursor: &mut Cursor<'_>, flow: u32) -> Option<(u32, u16)> {
            let tuple = TUPLES6.get(flow)?;
            let fields = cursor.take::<Fields6>().ok()?;
            let mut i = 0;
            while i < 4 {
                fields.addresses[i] = tuple.addresses[i];
                fence();
                i += 1;
            }
            Some((tuple.ports, tuple.checksum))
        }
    }

    /// The least that a balancer has to read.
    #[inline(always)]
    fn parse<F: Benched>(ctx: &XdpContext) -> Option<Tuple<F>> {
        let mut frame = XdpFrame::new(ctx);
        let mut cursor: Cursor<'_> = frame.cursor();
        let ethernet = cursor.take::<Ethernet>().ok()?;
        if Be16::from_bytes(ethernet.ethertype) != F::ETHERTYPE {
            return None;
        }
        let ip = cursor.take::<F::Header>().ok()?;
        let protocol = F::protocol(ip)?;
        let l4 = cursor.take::<Quoted>().ok()?;
        let Ip { source, destination, .. } = F::parse(ip);
        let ports = Ports::new(Be16::from_bytes(l4.source), Be16::from_bytes(l4.destination));
        Some(Tuple { source, destination, ports, protocol: u32::from(protocol) })
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
