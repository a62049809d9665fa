//! Address families: sides and rules that no packet can match.

use garde::{Path, Report, Validate};
use ipnet::IpNet;

use crate::{Endpoint, PolicyRule, Protocol, parse_cidr, validation::refusal};

/// Which address families a packet that matches may have.
#[derive(Clone, Copy, Default)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    const BOTH: Self = Self { v4: true, v6: true };

    /// The families that a side leaves possible; groups may hold either.
    fn of(side: &Endpoint) -> Self {
        let mut given = networks(&side.cidrs);
        if side.cidr_groups.is_some() {
            given.extend([IpNet::V4(Default::default()), IpNet::V6(Default::default())]);
        }
        let taken = IpNet::aggregate(&networks(&side.except));
        let mut families = Self::default();
        for net in &given {
            // They are sorted and apart, so only the last that starts no later can hold it.
            let before = taken.partition_point(|t| t <= net);
            if !taken[..before].last().is_some_and(|t| t.contains(net)) {
                families.add(net);
            }
        }
        families
    }

    fn and(self, other: Self) -> Self {
        Self {
            v4: self.v4 && other.v4,
            v6: self.v6 && other.v6,
        }
    }

    fn any(self) -> bool {
        self.v4 || self.v6
    }

    fn name(self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }

    fn add(&mut self, net: &IpNet) {
        match net {
            IpNet::V4(_) => self.v4 = true,
            IpNet::V6(_) => self.v6 = true,
        }
    }
}

/// The networks of a list. The schema has refused what is no CIDR.
fn networks(list: &[String]) -> Vec<IpNet> {
    let parsed = list.iter().flat_map(|text| parse_cidr(text));
    parsed.map(|net| net.trunc()).collect()
}

/// A validator of `except`: that it leaves the side an address.
pub(crate) fn leaves_an_address(side: &Endpoint) -> impl FnOnce(&[String], &()) -> garde::Result {
    move |except, ()| {
        let something_given = !side.cidrs.is_empty() || side.cidr_groups.is_some();
        if except.is_empty() || !something_given || Families::of(side).any() {
            return Ok(());
        }
        Err(refusal(
            "takes away every address of this side, so the rule never matches",
            "narrow except, or remove the rule",
        ))
    }
}

// By hand, for what is wrong lies between fields: between the sides, or between them and
// one of the protocols.
impl Validate for PolicyRule {
    type Context = ();

    fn validate_into(&self, ctx: &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        let Self { from, to, .. } = self;
        from.validate_into(ctx, &mut || parent().join("from"), report);
        to.validate_into(ctx, &mut || parent().join("to"), report);
        let from = from.as_ref().map_or(Families::BOTH, Families::of);
        let to = to.as_ref().map_or(Families::BOTH, Families::of);
        let both = from.and(to);
        if from.any() && to.any() && !both.any() {
            report.append(parent().join("to"), apart(from, to));
            return;
        }
        for (index, protocol) in self.protocols.iter().flatten().enumerate() {
            let mut path = || parent().join("protocols").join(index);
            match protocol {
                Protocol::Icmp(_) if both.any() && !both.v4 => {
                    report.append(path().join("icmp"), wrong_icmp(both, "icmpv6"));
                }
                Protocol::Icmpv6(_) if both.any() && !both.v6 => {
                    report.append(path().join("icmpv6"), wrong_icmp(both, "icmp"));
                }
                _ => protocol.validate_into(ctx, &mut path, report),
            }
        }
    }
}

fn apart(from: Families, to: Families) -> garde::Error {
    refusal(
        format_args!(
            "holds only {} and from only {}, so no packet has both",
            to.name(),
            from.name()
        ),
        "give both sides addresses of one family",
    )
}

fn wrong_icmp(families: Families, other: &str) -> garde::Error {
    refusal(
        format_args!(
            "never matches, for the rule's addresses are {} only",
            families.name()
        ),
        format_args!("write {other}, or add addresses of the other family"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Few bits vary, so that networks often hold each other.
    fn cidr() -> impl Strategy<Value = String> {
        prop_oneof![
            (0..16_u8, 0..9_u8).prop_map(|(a, length)| format!("{}.0.0.0/{length}", a << 4)),
            (0..16_u16, 0..9_u8).prop_map(|(a, length)| format!("{:x}::/{length}", a << 12)),
        ]
    }

    proptest! {
        #[test]
        fn a_family_is_left_where_no_taken_network_holds_a_given_one(
            cidrs in vec(cidr(), 1..4),
            except in vec(cidr(), 0..12),
        ) {
            let taken = IpNet::aggregate(&networks(&except));
            let mut left = networks(&cidrs);
            left.retain(|net| !taken.iter().any(|t| t.contains(net)));
            let families = Families::of(&Endpoint { cidrs, except, cidr_groups: None });
            let of_v4 = |net: &IpNet| net.addr().is_ipv4();
            prop_assert_eq!(families.v4, left.iter().any(of_v4));
            prop_assert_eq!(families.v6, !left.iter().all(of_v4));
        }
    }
}
