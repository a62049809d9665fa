//! Certificates as the Secret holds them, read and made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, time::ASN1Time,
};

use super::{
    Lifetimes, certified_key,
    plan::{Leaf, Plan, Present},
};

/// What the Secret holds, by the keys that `kubernetes.io/tls` and cert-manager use.
pub(super) type Data = BTreeMap<String, ByteString>;
/// The server's certificate.
pub(super) const LEAF: &str = "tls.crt";
/// Its key.
pub(super) const LEAF_KEY: &str = "tls.key";
/// The authorities' certificates, the newest last.
pub(super) const BUNDLE: &str = "ca.crt";
/// The newest authority's key.
const AUTHORITY_KEY: &str = "ca.key";

/// The clocks of two machines may differ by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Why there is no certificate. Outcome: what is there is served on, and it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    /// A name is none of a certificate, or the machine gives no random numbers.
    #[error("no certificate can be made: {0}; look at the names given by --webhook-name")]
    Make(#[from] rcgen::Error),
}

/// The certificates of the Secret, read once.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The authorities' certificates, PEM, the newest last.
    pub(super) authorities: Vec<String>,
    key: String,
    /// The same, as far as plans go.
    pub(super) present: Present,
}

impl Kept {
    /// What of the Secret can be used. Authorities without the newest one's key sign nothing: all
    /// of them are as good as gone.
    pub(super) fn read(data: &Data) -> Self {
        Self::authorities(data).unwrap_or(Self {
            authorities: Vec::new(),
            key: String::new(),
            present: Present {
                authorities: Vec::new(),
                leaf: None,
            },
        })
    }

    fn authorities(data: &Data) -> Option<Self> {
        let text = str::from_utf8(&data.get(BUNDLE)?.0).ok()?;
        let authorities: Vec<String> = blocks(text).map(str::to_owned).collect();
        let bundle: Result<Vec<_>, _> = authorities
            .iter()
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
            .collect();
        let bundle = bundle.ok()?;
        let parsed: Option<Vec<_>> = bundle.iter().map(|der| parsed(der)).collect();
        let parsed = parsed?;
        let key = String::from_utf8(data.get(AUTHORITY_KEY)?.0.clone()).ok()?;
        let public = KeyPair::from_pem(&key).ok()?.subject_public_key_info();
        if parsed.last()?.public_key().raw != public {
            return None;
        }
        let ends = parsed
            .iter()
            .map(|authority| time(authority.validity().not_after));
        let present = Present {
            authorities: ends.collect(),
            leaf: leaf(data, &parsed),
        };
        Some(Self {
            authorities,
            key,
            present,
        })
    }

    /// The newest authority's certificate, PEM.
    pub(super) fn newest(&self) -> Option<&str> {
        self.authorities.last().map(String::as_str)
    }
}

fn leaf(data: &Data, authorities: &[X509Certificate<'_>]) -> Option<Leaf> {
    let (certificate, key) = (data.get(LEAF)?, data.get(LEAF_KEY)?);
    let served = certified_key(&certificate.0, &key.0).ok()?;
    let leaf = parsed(served.cert.first()?)?;
    // Authorities have names of their own.
    let is_issuer =
        |authority: &X509Certificate<'_>| authority.subject().as_raw() == leaf.issuer().as_raw();
    Some(Leaf {
        ends: time(leaf.validity().not_after),
        names: names(&leaf),
        signed_by: authorities.iter().position(is_issuer)?,
    })
}

/// The certificates of a bundle, each in PEM.
fn blocks(bundle: &str) -> impl Iterator<Item = &str> {
    let blocks = bundle.split_inclusive("-----END CERTIFICATE-----\n");
    blocks.filter(|block| !block.trim().is_empty())
}

fn parsed(der: &[u8]) -> Option<X509Certificate<'_>> {
    parse_x509_certificate(der).ok().map(|(_, parsed)| parsed)
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .into_iter()
        .flat_map(|names| &names.value.general_names);
    names.filter_map(name).collect()
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What the Secret becomes by the plan.
pub(super) fn carry_out(
    plan: &Plan,
    kept: &Kept,
    former: &Data,
    names: &BTreeSet<String>,
    lifetimes: &Lifetimes,
    now: SystemTime,
) -> Result<Data, IssueError> {
    let mut data = former.clone();
    let mut authorities = kept.authorities[plan.retire..].to_vec();
    let mut key = kept.key.clone();
    let mut ends = kept.present.authorities.last().copied();
    if plan.new_authority {
        let end = now + lifetimes.authority;
        let (certificate, new_key) = authority(now, end)?;
        authorities.push(certificate);
        key = new_key;
        ends = Some(end);
    }
    let authority_ends = ends.unwrap_or(now);
    if let (true, Some(newest)) = (plan.new_leaf, authorities.last()) {
        let issuer = Issuer::from_ca_cert_pem(newest, KeyPair::from_pem(&key)?)?;
        let end = (now + lifetimes.leaf).min(authority_ends);
        let (certificate, key) = signed(&issuer, names, now, end)?;
        data.insert(LEAF.to_owned(), bytes(certificate));
        data.insert(LEAF_KEY.to_owned(), bytes(key));
    }
    data.insert(BUNDLE.to_owned(), bytes(authorities.concat()));
    data.insert(AUTHORITY_KEY.to_owned(), bytes(key));
    Ok(data)
}

fn bytes(text: String) -> ByteString {
    ByteString(text.into_bytes())
}

fn authority(now: SystemTime, end: SystemTime) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    // Its name tells it from the one before.
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut params = params(
        &format!("headgate-webhook-ca {}", since.as_millis()),
        now,
        end,
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn signed(
    issuer: &Issuer<'_, KeyPair>,
    names: &BTreeSet<String>,
    now: SystemTime,
    end: SystemTime,
) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let of_names = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    let mut params = params("headgate-webhook", now, end);
    params.subject_alt_names = of_names.subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(name: &str, now: SystemTime, end: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = end.into();
    params
}

#[cfg(test)]
mod tests {
    use super::{super::plan::plan, *};

    const LIFETIMES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(900),
        leaf: Duration::from_secs(90),
        settle: Duration::ZERO,
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn names() -> BTreeSet<String> {
        BTreeSet::from([
            "a.svc".to_owned(),
            "10.0.0.1".to_owned(),
            "fd00::1".to_owned(),
        ])
    }

    /// What becomes of these data at a time, its authorities published long ago.
    fn after(data: &Data, seconds: u64) -> Data {
        let kept = Kept::read(data);
        let published = Some(SystemTime::UNIX_EPOCH);
        let plan = plan(&kept.present, &names(), &LIFETIMES, published, at(seconds));
        let made = carry_out(&plan, &kept, data, &names(), &LIFETIMES, at(seconds));
        made.expect("names are ASCII")
    }

    #[test]
    fn what_was_made_is_read_as_it_was_planned() {
        let kept = Kept::read(&after(&Data::new(), 0));
        let leaf = Leaf {
            ends: at(90),
            names: names(),
            signed_by: 0,
        };
        assert_eq!(kept.present.authorities, [at(900)]);
        assert_eq!(kept.present.leaf, Some(leaf));
        assert_eq!(kept.newest(), kept.authorities.first().map(String::as_str));
    }

    #[test]
    fn a_rotation_leaves_no_moment_without_a_known_issuer() {
        let mut data = Data::new();
        let mut issuers = BTreeSet::new();
        for second in (0..3_000).step_by(10) {
            let before = Kept::read(&data).authorities;
            data = after(&data, second);
            let kept = Kept::read(&data);
            let leaf = kept.present.leaf.expect("there is always one");
            assert!(leaf.ends > at(second), "at {second}");
            // What API servers were told at the step before knows the certificate of this one.
            let issuer = &kept.authorities[leaf.signed_by];
            assert!(before.is_empty() || before.contains(issuer), "at {second}");
            assert!(kept.authorities.len() <= 2, "at {second}");
            issuers.insert(issuer.clone());
        }
        assert_eq!(issuers.len(), 5);
    }

    #[test]
    fn data_that_do_not_fit_together_are_as_good_as_none() {
        let (good, other) = (after(&Data::new(), 0), after(&Data::new(), 0));
        for key in [BUNDLE, AUTHORITY_KEY] {
            for value in [
                Some(other[key].clone()),
                Some(bytes("garbage".into())),
                None,
            ] {
                let mut data = good.clone();
                match value {
                    Some(value) => data.insert(key.to_owned(), value),
                    None => data.remove(key),
                };
                assert!(Kept::read(&data).authorities.is_empty(), "{key}");
            }
        }
        for key in [LEAF, LEAF_KEY] {
            let mut data = good.clone();
            data.insert(key.to_owned(), other[key].clone());
            let kept = Kept::read(&data);
            assert_eq!(
                (kept.authorities.len(), kept.present.leaf),
                (1, None),
                "{key}"
            );
        }
    }
}
