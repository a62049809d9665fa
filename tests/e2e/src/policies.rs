//! Resources as text.

/// An XdpPolicy with this spec, in YAML's flow style.
#[must_use]
pub fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: XdpPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// An XdpPolicy whose only rule, `udp`, drops UDP to this port.
#[must_use]
pub fn drop_udp(name: &str, port: u16) -> String {
    policy(
        name,
        &format!(
            "{{rules: [{{name: udp, action: Drop, protocols: [{{udp: {{ports: [{{port: {port}}}]}}}}]}}]}}"
        ),
    )
}

/// A CidrGroup.
#[must_use]
pub fn group(name: &str, cidrs: &[String]) -> String {
    let cidrs = cidrs.join("\", \"");
    format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: CidrGroup\nmetadata: {{name: {name}}}\nspec: {{cidrs: [\"{cidrs}\"]}}\n"
    )
}
