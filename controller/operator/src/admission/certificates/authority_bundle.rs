//! The authorities in the ValidatingWebhookConfiguration. Its other fields belong to whoever applies
//! the manifests.

use k8s_openapi::{
    ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration as Configuration,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::super::FIELD_MANAGER;

/// Whether every webhook of it trusts this authority, PEM.
pub(super) fn trusts(configuration: &Configuration, authority: &str) -> bool {
    let webhooks = configuration.webhooks.iter().flatten();
    let mut bundles = webhooks.map(|webhook| webhook.client_config.ca_bundle.as_ref());
    bundles.all(|bundle| {
        let text = bundle.and_then(|ByteString(bytes)| str::from_utf8(bytes).ok());
        text.is_some_and(|text| text.contains(authority))
    })
}

/// Whether every webhook of it has just this bundle.
pub(super) fn has(configuration: &Configuration, bundle: &[u8]) -> bool {
    let webhooks = configuration.webhooks.iter().flatten();
    let mut bundles = webhooks.map(|webhook| webhook.client_config.ca_bundle.as_ref());
    bundles.all(|found| found.is_some_and(|ByteString(bytes)| bytes == bundle))
}

/// Writes the bundle into each of its webhooks.
pub(super) async fn write(
    api: &Api<Configuration>,
    configuration: &Configuration,
    bundle: &[u8],
) -> Result<Configuration, kube::Error> {
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = patch(configuration, bundle);
    api.patch(name, &params, &Patch::Apply(&patch)).await
}

fn patch(configuration: &Configuration, bundle: &[u8]) -> Value {
    let webhooks = configuration.webhooks.iter().flatten().map(|webhook| {
        let bundle = ByteString(bundle.to_vec());
        json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})
    });
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        // The uid: one that was deleted meanwhile is not to be made anew.
        "metadata": {"name": configuration.metadata.name, "uid": configuration.metadata.uid},
        "webhooks": webhooks.collect::<Vec<_>>(),
    })
}
