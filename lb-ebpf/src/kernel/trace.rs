//! Debug traces: one line for each packet that is not forwarded, and one for each new flow.
//!
//! | level | line |
//! |---|---|
//! | debug | a packet is dropped or rejected; a flow is created |
//! | trace | a packet is passed to the host |
//!
//! The controller sets `AYA_LOG_LEVEL` to 0 unless traces are requested. The verifier knows that value, finds that no
//! trace is reachable, and removes them all. They are global functions (see [`super::subprograms`]), so that they add
//! neither stack nor paths to the packet path.

use aya_ebpf::{bindings::xdp_md, helpers, programs::XdpContext};
use aya_log_ebpf::{
    debug, log,
    macro_support::{Level, level_enabled},
};
use lb_common::{
    limits::TRACES_PER_SECOND,
    net::{Be16, Ports, Protocol, V4, V6},
    reason::{Action, Reason},
};

use super::{frame::XdpFrame, maps};
use crate::{
    family::Family,
    packet::frame::{Cursor, Frame as _},
    packet::headers::{Ethernet, Quoted},
    packet::parse::{self, Ip},
};

/// The target in the controller's log.
const TARGET: &str = "lb_ebpf";

/// Traces a packet that was not forwarded.
#[inline(always)]
pub fn refused(ctx: &XdpContext, reason: Reason) {
    if level_enabled(Level::Debug) {
        trace_refused(ctx.ctx, reason as u32);
    }
}

/// Traces a packet that will be answered, as long as it is there.
#[inline(always)]
pub fn rejected(ctx: *mut xdp_md, reason: Reason) {
    if level_enabled(Level::Debug) {
        trace_refused(ctx, reason as u32 | REJECTED);
    }
}

/// Added to the number of a reason: the packet is answered.
const REJECTED: u32 = 1 << 31;

/// Traces the new flow in this CPU's [`crate::table::scratch::Scratch`].
#[inline(always)]
pub fn new_flow<F: Traced>() {
    if level_enabled(Level::Debug) {
        F::trace_new_flow();
    }
}

/// The number of lines that this CPU has written in a second.
#[repr(C)]
pub struct Written {
    second: u32,
    lines: u32,
}

/// Is this level enabled, and is this CPU below its limit of trace lines per second?
#[inline(always)]
fn may_write(level: Level) -> bool {
    // Debug is checked separately: kernels before 6.8 also verify uncalled global functions, and must see a constant.
    if !level_enabled(Level::Debug) || !level_enabled(level) {
        return false;
    }
    let Some(written) = maps::TRACED.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own element, and a run is not interrupted by another on the same CPU.
    let written = unsafe { &mut *written };
    // SAFETY: a helper without arguments.
    let second = (unsafe { helpers::bpf_ktime_get_coarse_ns() } >> 30) as u32;
    if written.second != second {
        *written = Written { second, lines: 0 };
    }
    written.lines += 1;
    written.lines <= TRACES_PER_SECOND
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn trace_refused(ctx: *mut xdp_md, reason: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(refusal) = Refusal::new(&ctx, reason) else { return 0 };
    if !may_write(refusal.level) {
        return 0;
    }
    // A truncated frame gets a line without its headers.
    if refusal.of_packet(XdpFrame::new(&ctx).cursor()).is_err() {
        refusal.of_frame(ctx.data_end() - ctx.data());
    }
    0
}

/// The common part of the line for a packet that is not forwarded.
pub struct Refusal {
    level: Level,
    action: &'static str,
    reason: &'static str,
    interface: u32,
}

impl Refusal {
    #[inline(always)]
    fn new(ctx: &XdpContext, reason: u32) -> Option<Self> {
        let number = (reason & !REJECTED) as usize;
        let name = NAMES.get(number)?;
        // All have the same length, for the verifier.
        let (level, action) = match Reason::ALL.get(number)?.action() {
            _ if reason & REJECTED != 0 => (Level::Debug, "rejected"),
            Action::Drop => (Level::Debug, "dropped "),
            Action::Pass => (Level::Trace, "passed  "),
        };
        // SAFETY: names are ASCII (checked by a test of lb-common), and so is the padding.
        let reason = unsafe { core::str::from_utf8_unchecked(name) };
        Some(Self { level, action, reason, interface: ctx.ingress_ifindex() as u32 })
    }

    #[inline(always)]
    fn of_packet(&self, mut cursor: Cursor<'_>) -> Result<(), Reason> {
        let ethertype = parse::ethertype(&mut cursor)?;
        if ethertype == Ethernet::IPV4 {
            self.of_ip::<V4>(cursor)?;
        } else if ethertype == Ethernet::IPV6 {
            self.of_ip::<V6>(cursor)?;
        } else {
            let Self { level, action, reason, interface } = *self;
            let ethertype = ethertype.get();
            log!((), target: TARGET, level, "{} {} ethertype {:x}, interface {}", action, reason, ethertype, interface);
        }
        Ok(())
    }

    #[inline(always)]
    fn of_ip<F: Traced>(&self, mut cursor: Cursor<'_>) -> Result<(), Reason> {
        let ip = Ip::<F>::parse(&mut cursor)?;
        let has_ports = ip.is_first_fragment() && Protocol::from_number(ip.protocol).is_some();
        let ports = if has_ports { ports(cursor) } else { None };
        F::trace_refused(self, (ip.source, ip.destination), ip.protocol, ports);
        Ok(())
    }

    #[inline(always)]
    fn of_frame(&self, bytes: usize) {
        let Self { level, action, reason, interface } = *self;
        log!((), target: TARGET, level, "{} {} {} bytes, interface {}", action, reason, bytes, interface);
    }
}

/// The ports of TCP or UDP.
#[inline(always)]
fn ports(mut cursor: Cursor<'_>) -> Option<Ports> {
    let first = cursor.take::<Quoted>().ok()?;
    Some(Ports::new(Be16::from_bytes(first.source), Be16::from_bytes(first.destination)))
}

#[inline(always)]
fn name(protocol: u8) -> &'static str {
    if protocol == Protocol::Tcp.number() { "tcp" } else { "udp" }
}

/// A family's lines.
pub trait Traced: Family {
    /// Writes the line of the flow in [`crate::table::scratch::Scratch`].
    fn trace_new_flow();
    /// Writes the line of a packet that was not forwarded.
    fn trace_refused(
        refusal: &Refusal,
        addresses: (Self::Address, Self::Address),
        protocol: u8,
        ports: Option<Ports>,
    );
}

macro_rules! lines {
    ($family:ty, $scratch:ident, $function:ident, $new_flow:literal, $refused:literal, $without_ports:literal) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $function() -> u32 {
            let Some(flow) = maps::$scratch.get(0) else { return 0 };
            if !may_write(Level::Debug) {
                return 0;
            }
            let (tuple, rewritten) = (flow.tuple.get(), flow.rewritten.get());
            debug!(
                (),
                target: TARGET,
                $new_flow,
                name(tuple.protocol as u8),
                tuple.source.to_bytes(),
                tuple.ports.source().get(),
                tuple.destination.to_bytes(),
                tuple.ports.destination().get(),
                rewritten.source.to_bytes(),
                rewritten.ports.source().get(),
                rewritten.destination.to_bytes(),
                rewritten.ports.destination().get()
            );
            0
        }

        impl Traced for $family {
            #[inline(always)]
            fn trace_new_flow() {
                $function();
            }

            #[inline(always)]
            fn trace_refused(
                refusal: &Refusal,
                (source, destination): (Self, Self),
                protocol: u8,
                ports: Option<Ports>,
            ) {
                let Refusal { level, action, reason, interface } = *refusal;
                let (source, destination) = (source.to_bytes(), destination.to_bytes());
                if let Some(ports) = ports {
                    log!(
                        (),
                        target: TARGET,
                        level,
                        $refused,
                        action,
                        reason,
                        name(protocol),
                        source,
                        ports.source().get(),
                        destination,
                        ports.destination().get(),
                        interface
                    );
                } else {
                    log!(
                        (),
                        target: TARGET,
                        level,
                        $without_ports,
                        action,
                        reason,
                        protocol,
                        source,
                        destination,
                        interface
                    );
                }
            }
        }
    };
}

lines!(
    V4,
    SCRATCH4,
    trace_new_flow4,
    "new flow {} {:i}:{} > {:i}:{}, as {:i}:{} > {:i}:{}",
    "{} {} {} {:i}:{} > {:i}:{}, interface {}",
    "{} {} protocol {} {:i} > {:i}, interface {}"
);
lines!(
    V6,
    SCRATCH6,
    trace_new_flow6,
    "new flow {} [{:i}]:{} > [{:i}]:{}, as [{:i}]:{} > [{:i}]:{}",
    "{} {} {} [{:i}]:{} > [{:i}]:{}, interface {}",
    "{} {} protocol {} {:i} > {:i}, interface {}"
);

/// The names of all reasons, each padded with blanks: the verifier accepts no text of unknown length.
static NAMES: [[u8; LONGEST]; Reason::ALL.len()] = {
    let mut names = [[b' '; LONGEST]; Reason::ALL.len()];
    let mut number = 0;
    while number < names.len() {
        let name = Reason::ALL[number].name().as_bytes();
        let mut at = 0;
        while at < name.len() {
            names[number][at] = name[at];
            at += 1;
        }
        number += 1;
    }
    names
};

const LONGEST: usize = {
    let (mut longest, mut number) = (0, 0);
    while number < Reason::ALL.len() {
        let length = Reason::ALL[number].name().len();
        if length > longest {
            longest = length;
        }
        number += 1;
    }
    longest
};
