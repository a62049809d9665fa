//! Names of Pods in `headgate pod`.

use std::{
    fs,
    time::{Duration, Instant},
};

use headgate_e2e_tests::{
    binary::headgate,
    fleet::{Fleet, SOON},
    kubectl::Kubectl,
    node::Node,
    pod::Pod,
    said::Said,
    trials::on_cluster,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_cluster("pods_are_shown_by_their_names", named)]
}

/// A namespace of Pods that no kubelet runs.
struct Shop {
    kubectl: Kubectl,
    namespace: String,
}

impl Shop {
    fn open(fleet: &Fleet) -> Self {
        let shop = Self {
            kubectl: fleet.cluster.kubectl().clone(),
            namespace: fleet.named("shop"),
        };
        shop.kubectl.run(&["create", "namespace", &shop.namespace]);
        // Without its account a namespace takes no Pods.
        shop.run(&["wait", "--for=create", "serviceaccount/default"]);
        shop
    }

    fn run(&self, arguments: &[&str]) {
        let there = ["-n", &self.namespace];
        self.kubectl.run(&[arguments, &there].concat());
    }

    fn name(&self, pod: &str) -> String {
        format!("{}/{pod}", self.namespace)
    }

    /// A Pod on a node, as its kubelet would tell of it.
    fn add(&self, name: &str, node: &str, spec: &Value, phase: &str, addresses: &[String]) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "none"}],
            },
        });
        for (field, value) in spec.as_object().into_iter().flatten() {
            pod["spec"][field] = value.clone();
        }
        self.kubectl.apply(&pod.to_string());
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let mut status = json!({"status": {"phase": phase}});
        if let Some(first) = addresses.first() {
            status["status"]["podIP"] = json!(first);
            status["status"]["podIPs"] = json!(ips);
        }
        let patch = ["patch", "pod", name, "--subresource=status", "--type=merge"];
        self.run(&[patch.as_slice(), &["-p", &status.to_string()]].concat());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.namespace, "--wait=false"];
        let said = self.kubectl.said(&delete);
        if said.code != 0 {
            eprintln!("taking down {}: {said:?}", self.namespace);
        }
    }
}

fn said(node: &Node, arguments: &[&str]) -> Said {
    let mut command = node.namespace.command(headgate());
    command.arg("pod").args(arguments);
    command.args(["--instance", &node.instance, "--state-dir"]);
    let folder = node.state();
    command.arg(folder.parent().expect("of all instances"));
    Said::of(&mut command)
}

/// Address, name, and interface or the reason of each; without the neighbours on the nodes' switch, which lies
/// at a veth as a pod does.
fn shown(node: &Node, arguments: &[&str]) -> Vec<[String; 3]> {
    let view = said(node, &[arguments, &["-o", "json"]].concat()).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |pod: &Value| {
        let name = match &pod["pod"] {
            Value::Null if pod["isNotInApi"] == true => "nobody".to_owned(),
            Value::Null => String::new(),
            pod => format!("{}/{}", text(&pod["namespace"]), text(&pod["name"])),
        };
        let place = match &pod["place"] {
            Value::Null => text(&pod["reason"]),
            place => text(&place["interface"]),
        };
        [text(&pod["address"]), name, place]
    };
    let rows = view.as_array().into_iter().flatten().map(row);
    let is_pod = |[address, ..]: &[String; 3]| {
        ["10.244.", "fd24:"]
            .iter()
            .any(|network| address.starts_with(network))
            || address.is_empty()
    };
    rows.filter(is_pod).collect()
}

fn wait_for_rows(node: &Node, expected: &[[String; 3]]) {
    let until = Instant::now() + SOON;
    while shown(node, &["list"]) != expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(shown(node, &["list"]), expected);
}

fn named() {
    let fleet = Fleet::new(2);
    let shop = Shop::open(&fleet);
    let nodes = &fleet.cluster.nodes;
    let [here, there] = [0, 1].map(|index: usize| nodes[index].name.as_str());
    let _pods = [1, 3].map(|number| Pod::on(&nodes[0].member, number));
    let (plain, of_node) = (json!({}), json!({"hostNetwork": true}));
    let own = ["10.244.1.2", "fd24:1::2"].map(str::to_owned);
    let at = |text: &str| vec![text.to_owned()];
    shop.add("web", here, &plain, "Running", &own);
    shop.add("ghost", here, &plain, "Running", &at("10.244.1.77"));
    shop.add("new", here, &plain, "Pending", &[]);
    shop.add("proxy", here, &of_node, "Running", &at("10.63.0.1"));
    shop.add("job", here, &plain, "Succeeded", &at("10.244.3.2"));
    shop.add("other", there, &plain, "Running", &at("10.244.2.2"));
    let here = here.to_owned();
    let mut fleet = fleet.start();
    let node = &mut fleet.nodes[0];

    let elsewhere = "no route of this node leads to it without a gateway: it is behind another node, or nowhere";
    let all = |ghost: bool| {
        let name = |pod| shop.name(pod);
        let mut rows = vec![
            ["10.244.1.2".to_owned(), name("web"), "pod1".to_owned()],
            [
                "10.244.1.77".to_owned(),
                name("ghost"),
                elsewhere.to_owned(),
            ],
            ["10.244.3.2", "nobody", "pod3"].map(str::to_owned),
            ["fd24:1::2".to_owned(), name("web"), "pod1".to_owned()],
            ["fd24:3::2", "nobody", "pod3"].map(str::to_owned),
            [
                String::new(),
                name("new"),
                "the Pod has no address yet".to_owned(),
            ],
        ];
        rows.retain(|[_, name, _]| ghost || !name.ends_with("/ghost"));
        rows
    };
    wait_for_rows(node, &all(true));
    let table = said(node, &["list"]);
    assert_eq!(table.errors, "", "the API is heard");
    for word in [shop.name("web").as_str(), "not in the API", "POD"] {
        assert!(table.output.contains(word), "{word}: {}", table.output);
    }
    let web = shop.name("web");
    let of_web: Vec<_> = all(true)
        .into_iter()
        .filter(|[_, n, _]| *n == web)
        .collect();
    assert_eq!(shown(node, &["get", &web]), of_web);
    assert_eq!(shown(node, &["get", "10.244.1.2"]), of_web[..1]);
    let proxy = said(node, &["get", &shop.name("proxy")]);
    assert_eq!(proxy.code, 1, "{proxy:?}");
    assert!(proxy.errors.contains("hostNetwork"), "{proxy:?}");
    assert_eq!(said(node, &["get", "web"]).code, 2);

    // What nobody shows writes nothing.
    let file = node.state().join("pods.json");
    let written = || fs::metadata(&file).and_then(|file| file.modified()).ok();
    let before = written();
    shop.run(&["label", "pod", "web", "ghost", "tier=front"]);
    shop.run(&["delete", "pod", "other"]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(written(), before, "nothing changed that is kept");
    shop.run(&["delete", "pod", "ghost"]);
    wait_for_rows(node, &all(false));
    node.terminate();
    assert_eq!(shown(node, &["list"]), all(false), "as it was heard last");
    let old = said(node, &["list"]).errors;
    assert!(old.contains("may be out of date: no agent runs"), "{old}");
    // Whoever reads a directory keeps no names.
    node.read_from_directory(&here);
    node.start();
    let unnamed = said(node, &["list"]);
    assert!(!unnamed.output.contains(&web), "{unnamed:?}");
    assert!(
        unnamed.errors.contains("names of Pods are not known"),
        "{unnamed:?}"
    );
}
