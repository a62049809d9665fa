//! Ethernet, VLAN tags and what is not IP.

use headgate_packet::parse::{ParseError, Parsed, parse};

use crate::{
    error, fields,
    frames::{ARP, IPV4, IPV6, Ipv4, Ipv6, QINQ, SERVICE_VLAN, VLAN, ethernet, udp},
};

#[test]
fn up_to_two_vlan_tags_are_parsed_through() {
    let packet = Ipv4::default().packet(&udp(53, 1024));
    let untagged = fields(&ethernet(&[], IPV4, &packet));
    for tags in [
        &[VLAN][..],
        &[SERVICE_VLAN],
        &[QINQ],
        &[SERVICE_VLAN, VLAN],
        &[VLAN, VLAN],
        &[QINQ, SERVICE_VLAN],
    ] {
        let mut tagged = fields(&ethernet(tags, IPV4, &packet));
        assert_eq!(tagged.length, untagged.length + 4 * tags.len() as u32);
        assert!(!tagged.is_plain && untagged.is_plain);
        (tagged.length, tagged.is_plain) = (untagged.length, true);
        assert_eq!(tagged, untagged, "{tags:04x?}");
    }
}

#[test]
fn tagged_ipv6_is_ipv6() {
    let packet = Ipv6::default().packet(&udp(53, 1024));
    let untagged = fields(&ethernet(&[], IPV6, &packet));
    let tagged = fields(&ethernet(&[SERVICE_VLAN, VLAN], IPV6, &packet));
    assert_eq!(tagged.addresses, untagged.addresses);
    assert_eq!(tagged.transport, untagged.transport);
}

#[test]
fn a_third_vlan_tag_is_refused_whatever_follows() {
    let packet = Ipv4::default().packet(&udp(53, 1024));
    let three = ethernet(&[VLAN, VLAN, VLAN], IPV4, &packet);
    assert_eq!(error(&three), ParseError::VlanDepth);
    assert_eq!(
        error(&ethernet(&[SERVICE_VLAN, VLAN, QINQ], ARP, &[])),
        ParseError::VlanDepth
    );
    assert_eq!(
        error(&three[..22]),
        ParseError::VlanDepth,
        "the third tag need not be whole"
    );
}

#[test]
fn other_ethertypes_are_not_ip() {
    for ethertype in [
        ARP, 0x88cc, // LLDP
        0x8809, // LACP
        0x888e, // EAPOL
        0x0026, // a length: IEEE 802.3, spanning tree for one
        0x8864, // PPPoE
        0x0000, 0xffff,
    ] {
        for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
            let frame = ethernet(tags, ethertype, &[0x45; 60]);
            assert_eq!(parse(&frame[..]), Ok(Parsed::NotIp), "{ethertype:04x}");
        }
    }
}

#[test]
fn a_header_cut_short_is_malformed() {
    let arp = ethernet(&[VLAN, VLAN], ARP, &[]);
    for length in 0..arp.len() {
        assert_eq!(error(&arp[..length]), ParseError::Malformed, "{length}");
    }
    assert_eq!(parse(&arp[..]), Ok(Parsed::NotIp));
}

#[test]
fn padding_behind_the_packet_is_not_counted() {
    let mut frame = Ipv4::default().frame(&udp(1, 2));
    assert_eq!(frame.len(), 14 + 20 + 8);
    frame.resize(60, 0xee);
    assert_eq!(fields(&frame).length, 14 + 20 + 8);

    let mut frame = Ipv6::default().frame(&udp(1, 2));
    frame.resize(100, 0xee);
    assert_eq!(fields(&frame).length, 14 + 40 + 8);
}
