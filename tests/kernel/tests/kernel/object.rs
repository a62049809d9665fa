//! The object that is embedded, against the table of maps.

use aya_obj::{Object, generated::bpf_map_type};
use headgate_kernel::OBJECT;
use headgate_kernel_tests::{
    blocks::{default_of, large_rule_of},
    network::veth,
    node::{Node, port, wanted},
    trials::{anywhere, in_kernel},
};
use headgate_layout::{
    maps::{self, MapSpec, MapType},
    verdict::Action,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        anywhere("the_objects_maps_are_those_of_the_layout", maps_of_object),
        anywhere(
            "the_object_has_one_program_for_frames_in_several_buffers",
            program,
        ),
        anywhere("the_object_is_the_same_wherever_it_is_built", placeless),
        in_kernel("the_verifier_walks_half_of_what_it_would_at_most", verifier),
    ]
}

fn kind_of(spec: &MapSpec) -> u32 {
    let kind = match spec.kind {
        MapType::Array => bpf_map_type::BPF_MAP_TYPE_ARRAY,
        MapType::PerCpuArray => bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY,
        MapType::LpmTrie => bpf_map_type::BPF_MAP_TYPE_LPM_TRIE,
        MapType::ArrayOfMaps => bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS,
        MapType::Hash => bpf_map_type::BPF_MAP_TYPE_HASH,
        MapType::RingBuffer => bpf_map_type::BPF_MAP_TYPE_RINGBUF,
    };
    kind as u32
}

fn maps_of_object() {
    let object = Object::parse(OBJECT).expect("an object");
    let mut named = 0;
    for spec in maps::SHARED
        .iter()
        .chain(&maps::TUNNEL_MAPS)
        .chain([&maps::TABLES])
    {
        let name = match spec.name {
            name if name == maps::MONITORED.name => maps::MONITORED_SECTION,
            name => name,
        };
        let map = object.maps.get(name);
        let map = map.unwrap_or_else(|| panic!("the object lacks {}", spec.name));
        assert_eq!(map.map_type(), kind_of(spec), "type of {}", spec.name);
        assert_eq!(map.key_size(), spec.key_size, "key of {}", spec.name);
        assert_eq!(map.value_size(), spec.value_size, "value of {}", spec.name);
        assert_eq!(
            map.max_entries(),
            spec.max_entries,
            "entries of {}",
            spec.name
        );
        named += 1;
    }
    // The rest is what is compiled in at load time.
    assert_eq!(object.maps.len(), named + 1, "{:?}", object.maps.keys());
    for name in [maps::TABLES.name, maps::TUNNEL.name] {
        let template = object.maps[name].inner().expect("a template");
        let block = maps::table_block(64);
        assert_eq!(template.map_type(), kind_of(&block));
        assert_eq!(template.max_entries(), block.max_entries);
    }
}

fn program() {
    let object = Object::parse(OBJECT).expect("an object");
    let mut names: Vec<_> = object.programs.keys().collect();
    names.sort();
    let expected = [
        "headgate",
        "headgate_egress",
        "headgate_filter",
        "headgate_overlay",
        "headgate_tunnel_in",
        "headgate_tunnel_out",
    ];
    assert_eq!(names, expected);
    for name in ["headgate", "headgate_filter"] {
        let section = &object.programs[name].section;
        let frags = matches!(section, aya_obj::ProgramSection::Xdp { frags: true, .. });
        assert!(frags, "{section:?}");
    }
}

/// DWARF holds a hash of the checkout's path, whatever is mapped to something else in it; and an image
/// holds the object.
fn placeless() {
    let holds = |part: &[u8]| OBJECT.windows(part.len()).any(|window| window == part);
    assert!(holds(b".BTF"), "the search finds what is there");
    assert!(!holds(b".debug"), "it has DWARF");
    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let checkout = checkout.strip_suffix("tests/kernel/").expect("it is there");
    assert!(!holds(checkout.as_bytes()), "it names {checkout}");
}

/// Another release walks more or less of the same program.
fn verifier() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    for block in [
        default_of(Action::Drop),
        large_rule_of(Action::Drop, 7, 100 << 20),
    ] {
        node.converge(&wanted(&[(port(0), interface, &block)]));
        let walked = node.kernel.verified_instructions(port(0)).expect("read");
        println!("the verifier walked {walked} instructions");
        assert!(walked < 500_000, "{walked}");
    }
}
