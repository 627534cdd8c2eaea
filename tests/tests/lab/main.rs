//! The lab suite: the shipped `xlb` between network namespaces. Each module has one subject, and `cargo xtask test lab
//! -- SUBJECT` runs its tests. Tests run one at a time: several of them measure time.

mod availability;
mod backends;
mod boot;
mod bulk;
mod commands;
mod datagrams;
mod drain;
mod failing_backends;
mod flapping;
mod floods;
mod flow_remove;
mod forwarding;
mod health;
mod itself;
mod killed_starts;
mod kills;
mod mariadb;
mod memory;
mod metrics;
mod neighbours;
mod paths;
mod refusal;
mod reject;
mod reload;
mod scale;
mod schedulers;
mod slow_start;
mod stage;
mod standby;
mod start;
mod stop;
mod survival;
mod trace;
mod upgrade;
mod warnings;
