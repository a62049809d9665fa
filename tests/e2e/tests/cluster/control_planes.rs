//! Control planes of a test's own.

use std::time::Instant;

use headgate_e2e_tests::{control_plane::ControlPlane, trials::on_cluster};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_cluster(
        "a_second_control_plane_is_apart_and_its_api_server_comes_back",
        second,
    )]
}

fn second() {
    let shared = ControlPlane::shared();
    let started = Instant::now();
    let mut own = ControlPlane::start();
    println!(
        "a second control plane is at work in {:?}",
        started.elapsed()
    );
    own.kubectl().run(&["create", "namespace", "mine"]);
    assert!(knows_mine(&own) && !knows_mine(&shared));
    let crds = own.kubectl().run(&["get", "crds", "-o", "name"]);
    assert_eq!(crds, "", "a control plane of a test's own has no CRDs");

    own.kill_api_server();
    let said = own.kubectl().said(&["get", "namespace", "mine"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.errors.contains("was refused"), "{said:?}");
    own.start_api_server();
    assert!(knows_mine(&own));
}

fn knows_mine(control_plane: &ControlPlane) -> bool {
    let kubectl = control_plane.kubectl();
    kubectl.said(&["get", "namespace", "mine"]).code == 0
}
