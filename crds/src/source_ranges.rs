//! Warnings of source ranges that do not go with a service's addresses.

use crate::{Resource, check::Problem, parse_cidr, path::Path, remedy};

pub(crate) fn check(resource: &Resource, warnings: &mut Vec<Problem>) {
    let Resource::LoadBalancerService(service) = resource else {
        return;
    };
    let Some(ranges) = &service.spec.source_ranges else {
        return;
    };
    let spec = Path::ROOT.field("spec");
    let path = spec.field("sourceRanges");
    for (is_v4, family, all) in [(true, "IPv4", "0.0.0.0/0"), (false, "IPv6", "::/0")] {
        let of_family = |text: &String| {
            let range = parse_cidr(text).ok();
            range.is_some_and(|range| range.addr().is_ipv4() == is_v4)
        };
        let mut addresses = service.spec.parsed_addresses();
        let address = addresses.find(|address| address.is_ipv4() == is_v4);
        match (address, ranges.iter().position(of_family)) {
            (Some(address), None) => warnings.push(remedy::problem(
                path,
                format!("no range is {family}, so no client may use {address}"),
                format!("add one, such as {all} for all, or remove the address"),
            )),
            (None, Some(index)) => warnings.push(remedy::problem(
                path.item(index),
                format!("{} admits nobody: no address is {family}", ranges[index]),
                "remove it, or add an address of its family",
            )),
            _ => {}
        }
    }
}
