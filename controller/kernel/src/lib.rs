//! Carries out a plan in the running kernel, and reads back what is there. It makes no choices of
//! its own: those are `headgate_datapath`'s.

mod apply;
mod attach;
mod blocks;
mod bpf;
mod bpffs;
mod clsact;
mod counters;
mod egress;
mod error;
mod failsafe;
mod features;
mod flows;
mod grace;
pub mod interfaces;
mod layouts;
mod local_ports;
pub mod monitor;
mod netlink;
pub mod next_hops;
mod nftables;
mod object;
mod observe;
mod overlay;
mod pins;
pub mod pods;
mod ring_blocks;
mod running;
mod shared;
mod tcx;
pub mod tunnel;
mod watch;

pub use self::{
    bpf::TestRun,
    features::{KernelFeatures, probe, why_no_balancer},
    flows::FoundFlow,
    local_ports::local_ports,
    object::{OBJECT, object_digest},
    pins::{DEFAULT_BPFFS, Instance},
    running::RunningKernel,
};
