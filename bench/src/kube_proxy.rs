//! Rules for nft as kube-proxy writes them.

use std::net::Ipv4Addr;

/// Sets, and chains that do not depend on what is served.
const FIXED: &str = "
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.1 }; }
  set nodeport-ips { type ipv4_addr; elements = { 192.168.1.1 }; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  chain masquerading {
    mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
    ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
  }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain service-endpoints-check {
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
  }
  chain nodeport-endpoints-check {
    ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr 10.96.0.0/16 drop
  }
";

/// What hangs the chains into the stack.
const HOOKS: &str = "
  chain services {
    ip daddr @cluster-ips ip saddr != 10.244.0.0/16 mark set mark or 0x4000
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain filter-prerouting-pre-dnat {
    type filter hook prerouting priority dstnat - 10
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority filter
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority filter
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
";

/// Those that a packet meets of what kube-proxy 1.36 writes for one Service of type LoadBalancer with
/// `externalTrafficPolicy: Cluster`, at this address and UDP port, with these endpoints: read from one at work.
pub fn rules(
    (service, port): (Ipv4Addr, u16),
    endpoints: impl Iterator<Item = Ipv4Addr>,
    target_port: u16,
) -> String {
    let (mut choices, mut hairpins) = (Vec::new(), Vec::new());
    for (number, address) in endpoints.enumerate() {
        choices.push(format!("{number} : {address} . {target_port}"));
        hairpins.push(format!("{address} . {address} . udp . {target_port}"));
    }
    let count = choices.len();
    let (choices, hairpins) = (choices.join(", "), hairpins.join(", "));
    format!(
        "table ip kube-proxy {{
  set hairpin-connections {{
    type ipv4_addr . ipv4_addr . inet_proto . inet_service
    elements = {{ {hairpins} }}
  }}
{FIXED}
  chain service-web {{
    meta l4proto udp dnat ip to numgen random mod {count} map {{ {choices} }}
  }}
  chain external-web {{ mark set mark or 0x4000; goto service-web; }}
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {service} . udp . {port} : goto external-web }}
  }}
{HOOKS}}}
"
    )
}
