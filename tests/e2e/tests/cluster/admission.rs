//! The admission webhook in front of a real API server.

mod answers;
mod certificates;
mod mutated;
mod outage;
mod rights;
mod webhook;

use headgate_e2e_tests::trials::on_cluster;
use libtest_mimic::Trial;

pub(crate) use webhook::shut_down;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster(
            "the_webhook_refuses_with_path_reason_and_remedy_in_a_dry_run_too",
            answers::refusals,
        ),
        on_cluster(
            "the_webhook_alone_refuses_what_a_definition_without_a_schema_lets_through",
            answers::without_a_schema,
        ),
        on_cluster(
            "kubectl_shows_warnings_about_other_objects_and_nodes",
            answers::warnings,
        ),
        on_cluster(
            "labels_and_deletions_of_bad_objects_are_let_through",
            answers::unchanged,
        ),
        on_cluster(
            "a_second_apply_of_the_webhook_changes_nothing_with_its_authorities_in_place",
            certificates::second_apply,
        ),
        on_cluster(
            "certificates_are_rotated_under_continuous_applies",
            certificates::rotation,
        ),
        on_cluster(
            "without_the_webhook_nodes_agents_and_deletions_go_on",
            outage::down,
        ),
        on_cluster("an_agent_writes_of_its_own_node_alone", rights::agents),
        on_cluster(
            "reserved_groups_are_the_operators_alone",
            rights::reserved_groups,
        ),
        on_cluster(
            "five_hundred_mutated_resources_are_refused_or_good",
            mutated::five_hundred,
        ),
    ]
}
