//! Services of our class: each gets an address from a pool and a LoadBalancerService of its own, and is told
//! what became of it.

mod asked;
mod plan;

use std::{convert::Infallible, sync::Arc};

use headgate_crds::{API_VERSION, Kind, LoadBalancerService};
use headgate_source::kubernetes::explain;
use k8s_openapi::{api::core::v1::Service, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{
    FIELD_MANAGER,
    fleet::Fleet,
    turns::{PAUSE, Turns, delete_this},
};

pub use asked::{ADDRESSES, Asked, CLASS};
pub use plan::{Given, Plan, Step, Word, plan};

/// The label of what the operator has made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The condition that a Service gets.
pub const CONDITION: &str = "headgate.dev/Served";

/// Keeps them so while this replica leads.
pub(crate) async fn keep(
    client: Client,
    fleet: watch::Receiver<Arc<Fleet>>,
    is_leader: watch::Receiver<bool>,
) -> Infallible {
    let mut turns = Turns::new(fleet, is_leader);
    let mut given = Given::new();
    loop {
        let Some(now) = turns.next().await else {
            // Who leads meanwhile may give them to others.
            given.clear();
            continue;
        };
        let mut plan = plan(&now, &mut given);
        for (name, step) in plan.steps {
            let Err(error) = carry_out(&client, &now, &name, step).await else {
                continue;
            };
            let why = explain(&error);
            tracing::warn!("the LoadBalancerService {name}: {why}");
            if let (kube::Error::Api(_), Some(asked)) = (&error, now.services.get(&name)) {
                let word = Word::refused(asked, &why);
                match word.is_known_to(asked) {
                    true => drop(plan.words.remove(&name)),
                    false => drop(plan.words.insert(name, word)),
                }
            }
            sleep(PAUSE).await;
        }
        for (name, word) in plan.words {
            if let Err(error) = tell(&client, &now, &name, word).await {
                tracing::warn!("the status of the Service {name}: {}", explain(&error));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn carry_out(
    client: &Client,
    fleet: &Fleet,
    full_name: &str,
    step: Step,
) -> Result<(), kube::Error> {
    let (namespace, name) = Kind::split_name(full_name);
    let namespace = namespace.unwrap_or_default();
    let api: Api<LoadBalancerService> = Api::namespaced(client.clone(), namespace);
    match step {
        Step::Delete(uid) => delete_this(&api, name, uid).await?,
        Step::Apply(mut spec) => {
            spec.node_selector = None;
            let Some(asked) = fleet.services.get(full_name) else {
                return Ok(());
            };
            let object = json!({
                "apiVersion": API_VERSION,
                "kind": Kind::LoadBalancerService.as_str(),
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {MANAGED_BY: FIELD_MANAGER},
                    "ownerReferences": [{
                        "apiVersion": "v1",
                        "kind": "Service",
                        "name": asked.name,
                        "uid": asked.uid,
                        "controller": true,
                    }],
                },
                "spec": spec,
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(&object)).await?;
            tracing::info!(service = full_name, addresses = ?spec.addresses, "to be served");
        }
    }
    Ok(())
}

async fn tell(
    client: &Client,
    fleet: &Fleet,
    full_name: &str,
    word: Word,
) -> Result<(), kube::Error> {
    let (namespace, name) = Kind::split_name(full_name);
    let Some(asked) = fleet.services.get(full_name) else {
        return Ok(());
    };
    let api: Api<Service> = Api::namespaced(client.clone(), namespace.unwrap_or_default());
    let now = if word.is_served { "True" } else { "False" };
    let former = asked.said.as_ref().filter(|said| said.status == now);
    let since = former.map_or_else(Timestamp::now, |said| said.last_transition_time.0);
    let ingress: Vec<_> = word.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "uid": asked.uid},
        "status": {
            "loadBalancer": {"ingress": ingress},
            "conditions": [{
                "type": CONDITION,
                "status": now,
                "reason": word.reason,
                "message": word.message,
                "observedGeneration": asked.generation,
                "lastTransitionTime": since.to_string(),
            }],
        },
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &params, &Patch::Apply(&status))
        .await?;
    Ok(())
}
