//! Slow paths: separate programs that the fast path reaches by tail call.
//!
//! Each is verified separately and starts with an empty stack. Their input is in
//! [`Scratch`](crate::table::scratch::Scratch). A new slow path is a file and a line in the table below.

use lb_common::net::{V4, V6};

use crate::{
    packet::{frame::Frame, icmp::IcmpFamily},
    path::{icmp, new_flow, pipeline::Verdict, refresh},
    steps::Tables,
};

macro_rules! slow_paths {
    ($($module:ident $constant:ident $v4:ident $v6:ident $about:literal;)*) => {
        /// A program that the fast path calls.
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
                        Self::$v4 => concat!(stringify!($module), "4"),
                        Self::$v6 => concat!(stringify!($module), "6"),
                    )*
                }
            }
        }

        /// The slow paths of a family.
        pub trait SlowPaths: IcmpFamily {
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
                    SlowPath::$v4 => $module::run::<V4>(frame, tables),
                    SlowPath::$v6 => $module::run::<V6>(frame, tables),
                )*
            }
        }
    };
}

slow_paths! {
    new_flow NEW_FLOW NewFlow4 NewFlow6 "A request of no known flow.";
    refresh REFRESH Refresh4 Refresh6 "A reply whose next hop was looked up before routes changed.";
    icmp ICMP_ERROR Icmp4 Icmp6 "An ICMP error.";
}
