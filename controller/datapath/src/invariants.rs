//! What holds in every state that a plan passes through.

use crate::{observed::Observed, tunnel::ObservedTunnel};

/// What is wrong with `observed`, in words; empty where all holds.
///
/// - A program that is attached finds tables in every slot that a flip could make active.
/// - It is a program of ours, known by the object that it was loaded from.
/// - A program at an egress, or for overlays at an ingress, finds the table of flows.
/// - The tunnel's device is up only where its programs and tables are.
/// - A route leads to the tunnel only where its device, programs, tables and neighbours are.
#[must_use]
pub fn violations(observed: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    for (port, link) in &observed.links {
        if link.ifindex.is_none() {
            continue;
        }
        if observed.enforced(*port).is_none() {
            found.push(format!(
                "{port} has a program but no tables in the active slot"
            ));
        }
        if !observed.prepared {
            found.push(format!(
                "{port} has a program but the shared maps are missing"
            ));
        }
    }
    for port in observed.egress.keys().filter(|_| !observed.flows) {
        found.push(format!(
            "{port} has a program at its egress but there is no table of flows"
        ));
    }
    for ifindex in observed.overlay.keys().filter(|_| !observed.flows) {
        found.push(format!(
            "interface {} has a program for overlays but there is no table of flows",
            ifindex.0
        ));
    }
    found.extend(tunnel_violations(&observed.tunnel));
    found
}

fn tunnel_violations(tunnel: &ObservedTunnel) -> Vec<String> {
    let judges = tunnel.programs.is_some() && tunnel.tables.is_some();
    let is_up = tunnel.device.is_some_and(|found| found.is_up);
    let works = is_up && judges;
    let blind = tunnel.routes.iter().filter(|(_, route)| {
        // Another address of the device takes them away until the step after the next.
        !works || (!tunnel.neighbours.is_empty() && !tunnel.neighbours.contains_key(&route.gateway))
    });
    let open = (is_up && !judges)
        .then(|| "the tunnel's device is up without programs or tables".to_owned());
    blind
        .map(|(prefix, _)| format!("{prefix:?} leads to a tunnel that cannot send"))
        .chain(open)
        .collect()
}
