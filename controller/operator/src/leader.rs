//! One replica writes: the one that holds the Lease.

use std::time::{Duration, Instant};

use headgate_source::kubernetes::explain;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::sockets::forget_unsent_at_close;

/// Name of the Lease.
pub const LEASE: &str = "headgate-operator";
/// Seconds for which a holder that says nothing keeps it.
const DURATION: u16 = 15;
/// Between two attempts to take or renew it.
const ATTEMPT: Duration = Duration::from_secs(3);
/// A holder that could not renew for so long stops: soon another may hold it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why this replica is no longer sure to be the only one that writes. Outcome: it ends, and starts
/// anew.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// Another took the Lease.
    #[error("another replica, {0}, holds the Lease {LEASE} now")]
    Lost(String),
    /// The API did not answer in time.
    #[error("the Lease {LEASE} could not be renewed in time: {0}")]
    NotRenewed(String),
}

/// Who holds the Lease, as far as this replica knows.
struct Campaign {
    api: Api<Lease>,
    identity: String,
    /// The last change that was seen, and when: clocks of replicas may differ.
    seen: Option<(Option<String>, Instant)>,
}

/// Strives for the Lease for ever, and says in `is_leader` whether it is held. `listening` are the ports that
/// others connect to.
///
/// # Errors
/// It was held and is lost.
pub async fn campaign(
    client: Client,
    namespace: &str,
    identity: String,
    listening: &[u16],
    is_leader: &watch::Sender<bool>,
) -> Result<std::convert::Infallible, LeaderError> {
    let mut campaign = Campaign {
        api: Api::namespaced(client, namespace),
        identity,
        seen: None,
    };
    let mut attempts = interval(ATTEMPT);
    attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        attempts.tick().await;
        let began = Instant::now();
        let leads = *is_leader.borrow();
        if leads {
            // At each attempt, for a write may be given up before the lead is.
            forget_unsent_at_close(listening);
        }
        let limit = match leads {
            true => DEADLINE.saturating_sub(renewed.elapsed()),
            false => DEADLINE,
        };
        let outcome = timeout(limit, campaign.attempt()).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer".to_owned()));
        match outcome {
            Ok(None) => {
                renewed = began;
                is_leader.send_if_modified(|leads| !std::mem::replace(leads, true));
                if !leads {
                    tracing::info!(identity = campaign.identity, "leads");
                }
            }
            Ok(Some(holder)) if leads => {
                is_leader.send_replace(false);
                return Err(LeaderError::Lost(holder));
            }
            Err(reason) if leads && renewed.elapsed() >= DEADLINE => {
                is_leader.send_replace(false);
                return Err(LeaderError::NotRenewed(reason));
            }
            Ok(Some(_)) => {}
            Err(reason) => tracing::debug!("the Lease {LEASE}: {reason}"),
        }
    }
}

/// Gives the Lease up, so that another need not wait until it ends.
pub async fn resign(client: Client, namespace: &str, identity: &str) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let given_up = async {
        let mut lease = api.get(LEASE).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(identity) {
            spec.holder_identity = None;
            api.replace(LEASE, &PostParams::default(), &lease).await?;
        }
        Ok::<_, kube::Error>(())
    };
    if let Ok(Err(error)) = timeout(ATTEMPT, given_up).await {
        tracing::debug!("the Lease {LEASE} is not given up: {}", explain(&error));
    }
}

impl Campaign {
    /// Takes or renews the Lease; who else holds it, where somebody does.
    async fn attempt(&mut self) -> Result<Option<String>, String> {
        let lease = self
            .api
            .get_opt(LEASE)
            .await
            .map_err(|error| explain(&error))?;
        let Some(mut lease) = lease else {
            let new = Lease {
                metadata: ObjectMeta {
                    name: Some(LEASE.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None)),
            };
            return self.settle(self.api.create(&PostParams::default(), &new).await);
        };
        let version = lease.resource_version();
        if self.seen.as_ref().map(|(version, _)| version) != Some(&version) {
            self.seen = Some((version, Instant::now()));
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec
            .holder_identity
            .clone()
            .filter(|holder| !holder.is_empty());
        let lasts = Duration::from_secs(DURATION.into());
        let has_ended = self
            .seen
            .as_ref()
            .is_some_and(|(_, seen)| seen.elapsed() > lasts);
        match holder {
            Some(holder) if holder != self.identity && !has_ended => Ok(Some(holder)),
            _ => {
                lease.spec = Some(self.claim(Some(spec)));
                self.settle(
                    self.api
                        .replace(LEASE, &PostParams::default(), &lease)
                        .await,
                )
            }
        }
    }

    /// A write that meets another's is no error: the other was first.
    fn settle(&self, written: Result<Lease, kube::Error>) -> Result<Option<String>, String> {
        match written {
            Ok(_) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(format!("another replica was faster than {}", self.identity))
            }
            Err(error) => Err(explain(&error)),
        }
    }

    fn claim(&self, former: Option<LeaseSpec>) -> LeaseSpec {
        let former = former.unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let holds = former.holder_identity.as_ref() == Some(&self.identity);
        let transitions = former.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.into()),
            acquire_time: match holds {
                true => former.acquire_time,
                false => Some(now.clone()),
            },
            lease_transitions: Some(if holds { transitions } else { transitions + 1 }),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}
