//! Slow paths: separate programs that the fast path reaches by tail call.
//!
//! Each is verified separately and starts with an empty stack. Their input is in
//! [`Scratch`](crate::table::scratch::Scratch). A new slow path is a file and a line in the table below: its numbers,
//! programs and tail calls are generated from that line.

use lb_common::net::{V4, V6};

use crate::{
    packet::{answer::AnswerFamily, frame::Frame, icmp::IcmpFamily},
    path::pipeline::Verdict,
    steps::Tables,
};

/// The table, passed to the macro `$use`. A line has the module with the function `run`, the associated constant,
/// number and program for IPv4, then for IPv6, and which packets take the path.
#[macro_export]
macro_rules! slow_paths {
    ($use:ident) => {
        $use! {
            new_flow NEW_FLOW: NewFlow4 new_flow4, NewFlow6 new_flow6, "A request of no known flow.";
            expire EXPIRE: Expire4 expire4, Expire6 expire6,
                "A request of no known flow, when it is time to retire flows that have expired.";
            refresh REFRESH: Refresh4 refresh4, Refresh6 refresh6,
                "A reply whose next hop was looked up before routes changed.";
            ended ENDED: Ended4 ended4, Ended6 ended6, "A reply of a flow that was ended.";
            resume RESUME: Resume4 resume4, Resume6 resume6,
                "A backend's segment of no known flow, while another node may know it.";
            reject REJECT: Reject4 reject4, Reject6 reject6, "A packet that is refused, and that may be answered.";
            icmp ICMP_ERROR: Icmp4 icmp4, Icmp6 icmp6, "An ICMP error.";
        }
    };
}

macro_rules! numbers {
    ($($module:ident $constant:ident: $v4:ident $program4:ident, $v6:ident $program6:ident, $about:literal;)*) => {
        /// A program that the fast path or another slow path calls.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum SlowPath {
            $(
                #[doc = $about]
                $v4,
                #[doc = $about]
                $v6,
            )*
        }

        impl SlowPath {
            /// All slow paths, indexed by number.
            pub const ALL: &[Self] = &[$(Self::$v4, Self::$v6,)*];

            /// The program's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(
                        Self::$v4 => stringify!($program4),
                        Self::$v6 => stringify!($program6),
                    )*
                }
            }
        }

        /// The slow paths of a family.
        pub trait SlowPaths: IcmpFamily + AnswerFamily {
            $(
                #[doc = $about]
                const $constant: SlowPath;
            )*
        }

        impl SlowPaths for V4 {
            $(const $constant: SlowPath = SlowPath::$v4;)*
        }

        impl SlowPaths for V6 {
            $(const $constant: SlowPath = SlowPath::$v6;)*
        }

        /// Runs a slow path. In the kernel each is a program, reached by tail call.
        pub fn run(path: SlowPath, frame: &mut impl Frame, tables: &impl Tables) -> Verdict {
            match path {
                $(
                    SlowPath::$v4 => crate::path::$module::run::<V4>(frame, tables),
                    SlowPath::$v6 => crate::path::$module::run::<V6>(frame, tables),
                )*
            }
        }
    };
}

slow_paths!(numbers);
