//! Steps of the program that sends packets on to backends behind an overlay, and back.

use super::Planner;
use crate::{observed::AttachedOverlay, plan::Step, state::Ifindex};

impl Planner<'_> {
    /// Before the first packet that needs it: what XDP passes up for an overlay is nobody's without it.
    pub(super) fn attach_overlay(&mut self) {
        let present = AttachedOverlay {
            is_there: true,
            object: Some(self.object),
        };
        for (ifindex, attached) in &self.observed.overlay {
            if self.stays(*ifindex, attached) && *attached != present {
                let interface = match self.wanted.overlay.get(ifindex) {
                    Some(name) => name.clone(),
                    None => format!("interface {}", ifindex.0),
                };
                self.attach(interface, *ifindex);
            }
        }
        for (ifindex, interface) in &self.wanted.overlay {
            if !self.observed.overlay.contains_key(ifindex) {
                self.attach(interface.clone(), *ifindex);
            }
        }
    }

    fn attach(&mut self, interface: String, ifindex: Ifindex) {
        self.steps.push(Step::AttachOverlay { interface, ifindex });
    }

    pub(super) fn detach_overlay(&mut self) {
        for (ifindex, attached) in &self.observed.overlay {
            if !self.stays(*ifindex, attached) {
                self.steps.push(Step::DetachOverlay(*ifindex));
            }
        }
    }

    /// Whether the interface is to have the program, or has one that flows may need which lead to backends that are
    /// no longer asked for: as long as there are flows at all.
    fn stays(&self, ifindex: Ifindex, attached: &AttachedOverlay) -> bool {
        let is_needed = self.wanted.flows && attached.is_there;
        is_needed || self.wanted.overlay.contains_key(&ifindex)
    }
}
