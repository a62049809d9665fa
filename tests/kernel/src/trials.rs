//! Tests that say so where they cannot run.

use libtest_mimic::{Completion, Failed, Trial};

use crate::network;

/// A test in a thread and network namespace of its own; skipped, with the reason, where this node
/// or process cannot carry it.
pub fn in_kernel(name: &'static str, test: fn()) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Err(reason) = headgate_kernel::probe() {
            eprintln!("SKIPPED {name}: {reason}");
            return Ok(Completion::ignored_with(reason));
        }
        in_thread(move || {
            network::enter();
            test();
        })?;
        Ok(Completion::Completed)
    })
}

/// The same for a test of the load balancer, which older kernels do not verify.
pub fn in_kernel_that_balances(name: &'static str, test: fn()) -> Trial {
    match headgate_kernel::why_no_balancer() {
        None => in_kernel(name, test),
        Some(reason) => Trial::ignorable_test(name, move || {
            eprintln!("SKIPPED {name}: {reason}");
            Ok(Completion::ignored_with(reason))
        }),
    }
}

/// A test that needs nothing of the kernel.
pub fn anywhere(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || in_thread(test))
}

fn in_thread(test: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    std::thread::spawn(test).join().map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Failed::from(text.unwrap_or("panicked"))
    })
}

/// How many packets a flood has: what takes a minute only where tests are to run as long as it takes to be sure.
#[must_use]
pub fn flood() -> u32 {
    match std::env::var_os("HEADGATE_SOAK") {
        Some(value) if value == "1" => 2_000_000,
        _ => 300_000,
    }
}
