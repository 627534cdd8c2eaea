//! The data plane on a real kernel, from the first start to `xlb detach`.

mod attach;
mod contents;
mod first_release;
mod grace_period;
mod killed;
mod layouts;
mod maps;
mod pins;
mod process;
mod refused;
mod shapes;
mod slow_paths;
mod two_programs;
mod world;
