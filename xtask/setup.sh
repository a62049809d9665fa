#!/usr/bin/env bash
# Installs what building, testing and checking Headgate needs: Debian packages by apt, and
# pinned tools into the user's cache folder, where every other clone finds them.
#
#   xtask/setup.sh [build]   what `make build`, `demo`, `test` and `bench` need
#   xtask/setup.sh check     that and cargo-deny, for `make check`
#   xtask/setup.sh path      print the PATH that puts the chosen tools first
#   xtask/setup.sh control-plane
#       build a Kubernetes control plane for tests and print its folder; where this machine
#       lacks what that needs, print the reason and exit with 3
#   xtask/setup.sh argocd   the same with Argo CD
#   xtask/setup.sh nodes    the same with kubelet, kube-proxy and kube-scheduler, and what nodes run
#       them on; installs that by apt
#   xtask/setup.sh kernels   what `make kernels` needs besides; print the folder of its kernels
#
# HEADGATE_CACHE      folder of the pinned tools (default: ${XDG_CACHE_HOME:-~/.cache}/headgate)
# BPF_LINKER          a bpf-linker to use instead of the pinned one
# KUBEBUILDER_ASSETS  folder of etcd, kube-apiserver and kubectl to use instead of building them
set -euo pipefail

readonly BPF_LINKER_VERSION=0.13.0 LLVM_MAJOR=22 CARGO_DENY_VERSION=0.20.2
readonly RUST_MINOR=95 # rust-version of the workspace: 1.95
readonly GO_MINOR=26   # what Kubernetes' modules ask for: 1.26

readonly CACHE=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/headgate}
readonly PINNED_LINKER=$CACHE/bpf-linker-$BPF_LINKER_VERSION-llvm$LLVM_MAJOR
readonly PINNED_DENY=$CACHE/cargo-deny-$CARGO_DENY_VERSION
readonly CARGO_BIN=${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
TESTS=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")/tests/e2e
readonly TESTS
# The folder of the Go module that is built.
SOURCE=

# Package and why; what these depend on (rustc-web, gcc, libc6-dev, binutils) comes with them.
readonly PACKAGES=(
    "cargo-web|builds the project (brings rustc-web and gcc)"
    "rust-web-clippy|lints of make check"
    "rustfmt-web|formatting of make check"
    "libstd-rust-web-dev-bpf|Rust's core library for eBPF programs"
    "libllvm$LLVM_MAJOR|what bpf-linker generates eBPF code with"
    "ca-certificates|downloads of crates over TLS"
    "bpftool|looks at maps and programs from outside, in tests"
    "ethtool|lets veth pairs take what XDP sends, in tests"
    "iproute2|network namespaces and veth pairs of demo and tests"
    "curl|fetches by way of the load balancer, in tests"
    "iperf3|fills connections by way of the load balancer, in tests"
    "iputils-ping|asks addresses of services for an echo, in tests"
)

# What a node of `make cluster` runs on.
readonly NODE_PACKAGES=(
    "containerd|runs the pods of a node"
    "runc|runs the containers of a pod"
    "containernetworking-plugins|networks of pods: bridge, host-local, loopback"
    "nftables|what kube-proxy writes the rules of Services with"
    "iptables|the same in its other mode"
    "conntrack|what kube-proxy forgets connections with"
    "busybox-static|the image of pods that tests send packets between"
)

say() { printf '==> %s\n' "$*" >&2; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Prints the minor version of a Rust 1.x cargo, or 0 where it does not run.
rust_minor() {
    local version
    version=$("$1" --version 2>/dev/null) || version=
    [[ $version =~ ^cargo\ 1\.([0-9]+)\. ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

may_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# Prints those of these packages that are not installed. Arguments: package and why, each.
missing_of() {
    local installed entry
    # dpkg-query fails as soon as one name is unknown to it, and still prints the others.
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${@%%|*}" 2>/dev/null) || true
    for entry in "$@"; do
        grep -qx "${entry%%|*} installed" <<<"$installed" || echo "$entry"
    done
}

missing_packages() { missing_of "${PACKAGES[@]}"; }

# /usr/bin first, so that a rustup earlier on PATH does not win over the packaged toolchain;
# unless what is there is too old. cargo looks for cargo-clippy in its home before PATH, except
# where that folder is on PATH: so it goes last.
print_path() {
    if [[ -x /usr/bin/cargo ]] && (($(rust_minor /usr/bin/cargo) < RUST_MINOR)); then
        echo "$PINNED_DENY/bin:$PATH:$CARGO_BIN"
    else
        echo "$PINNED_DENY/bin:/usr/bin:$PATH:$CARGO_BIN"
    fi
}

# One set-up at a time for a cache folder; the lock goes with the process.
locked=
lock() {
    [[ -z $locked ]] || return 0
    mkdir -p "$CACHE" || fail "cannot make the folder $CACHE" "set HEADGATE_CACHE to one that can be written"
    exec 9>"$CACHE/lock"
    flock --nonblock 9 || { say "another set-up is running: waiting for it" && flock 9; }
    locked=yes
}

apt() { apt-get -o DPkg::Lock::Timeout=600 -o APT::Color=0 "$@" >&2; }

# Brings the package lists up to date; true where they offer a toolchain that is new enough.
apt_offers_toolchain() {
    say "bringing apt's package lists up to date"
    apt update -q || say "apt-get update failed: trying with the lists that are there"
    local candidate
    candidate=$(apt-cache policy cargo-web | sed -n 's/^ *Candidate: //p')
    [[ $candidate =~ ^1\.([0-9]+)\. ]] && ((BASH_REMATCH[1] >= RUST_MINOR)) && return
    say "apt offers cargo-web '${candidate:-none}', and 1.$RUST_MINOR or later is needed"
    say "Debian 12 and 13 have it in their security archive: is debian-security in apt's sources?"
    return 1
}

# Installs these packages and says why. Arguments: package and why, each.
apt_install() {
    local entry
    say "installing these Debian packages and what they depend on:"
    for entry in "$@"; do
        printf '      %-25s %s\n' "${entry%%|*}" "${entry#*|}" >&2
    done
    DEBIAN_FRONTEND=noninteractive apt install -y -q --no-install-recommends --no-remove "${@%%|*}"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    apt_install "${missing[@]}" ||
        fail "apt-get could not install: ${missing[*]%%|*}" \
            "Debian's own cargo and rustc cannot stand beside cargo-web: where they are installed, remove them first" \
            "  apt-get remove cargo rustc rust-clippy rustfmt"
}

# Builds a crate's binary in a folder beside its final place and renames it, so that a half
# built one is never found. Arguments: final folder, crate, version, further cargo arguments.
cargo_install() {
    local folder=$1 crate=$2 version=$3 work
    shift 3
    work=$(mktemp -d "$CACHE/.build-$crate.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work/llvm/lib"
    # LLVM_PREFIX wants a lib folder with an unversioned name; the -dev package that has one
    # brings 150 MB of headers and static libraries that nobody here needs.
    ln -s "$(llvm_library)" "$work/llvm/lib/libLLVM.so"
    # These tools spend their time in LLVM and in files: without optimisation they build in less
    # than half the time and run as well.
    env -u RUSTFLAGS -u CARGO_BUILD_TARGET LLVM_PREFIX="$work/llvm" CARGO_TARGET_DIR="$work/target" \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install "$crate" --version "$version" --locked --root "$work/root" "$@" >&2 ||
        fail "$crate $version did not build (the reason is above)" \
            "it is downloaded from crates.io: is that reachable from here?"
    mv -T "$work/root" "$folder"
    rm -rf "$work"
    trap - EXIT
}

llvm_library() { dpkg-query -L "libllvm$LLVM_MAJOR" | grep "/libLLVM.so.$LLVM_MAJOR\.[0-9]*\$"; }

install_bpf_linker() {
    [[ -n ${BPF_LINKER:-} || -x $PINNED_LINKER/bin/bpf-linker ]] && return
    lock
    [[ -x $PINNED_LINKER/bin/bpf-linker ]] && return
    say "building bpf-linker $BPF_LINKER_VERSION, which links eBPF programs (a minute or two, once), into $CACHE"
    cargo_install "$PINNED_LINKER" bpf-linker "$BPF_LINKER_VERSION" \
        --no-default-features --features "llvm-$LLVM_MAJOR"
}

install_cargo_deny() {
    [[ -x $PINNED_DENY/bin/cargo-deny ]] && return
    lock
    [[ -x $PINNED_DENY/bin/cargo-deny ]] && return
    say "building cargo-deny $CARGO_DENY_VERSION, which checks licences and sources (minutes, once), into $CACHE"
    cargo_install "$PINNED_DENY" cargo-deny "$CARGO_DENY_VERSION" --no-default-features
}

# Ends where only the tests on a control plane have to do without: they say why.
lacking() {
    printf '%s\n' "$1"
    exit 3
}

# The first Go that is new enough: on PATH /usr/bin stands first for cargo's sake, with Debian's.
find_go() {
    local go version
    while read -r go; do
        # Never one that Go would download by itself.
        version=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null) || continue
        [[ $version =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= GO_MINOR)) && echo "$go" && return
    done < <(type -ap go || true; echo /usr/local/go/bin/go)
    return 1
}

# Runs a Go command on the module that is built, whatever else Go is set up for here.
go_on_source() {
    local go=$1 command=$2
    shift 2
    env -C "$SOURCE" -u GOOS -u GOARCH GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0 \
        "$go" "$command" -mod=readonly -tags grpcnotrace "$@"
}

version_of() { sed -n "s|^\t$1 v||p" "$SOURCE/go.mod"; }

compile_control_plane() {
    local kubernetes minor program flags="-s -w" package=k8s.io/component-base/version
    kubernetes=$(version_of k8s.io/kubernetes) minor=${kubernetes#*.}
    # A release is told its version when it is built; the API server's behaviour hangs on it.
    flags+=" -X $package.gitVersion=v$kubernetes -X $package.gitTreeState=clean"
    flags+=" -X $package.gitMajor=${kubernetes%%.*} -X $package.gitMinor=${minor%%.*}"
    go_on_source "$1" build -trimpath -buildvcs=false -ldflags "$flags" -o "$2/control-plane" . >&2 || return
    for program in etcd kube-apiserver kube-controller-manager kubectl; do
        ln -s control-plane "$2/$program"
    done
}

compile_nodes() {
    local kubernetes minor program flags="-s -w" package=k8s.io/component-base/version
    kubernetes=$(version_of k8s.io/kubernetes) minor=${kubernetes#*.}
    # A node says to the API which version its kubelet has.
    flags+=" -X $package.gitVersion=v$kubernetes -X $package.gitTreeState=clean"
    flags+=" -X $package.gitMajor=${kubernetes%%.*} -X $package.gitMinor=${minor%%.*}"
    go_on_source "$1" build -trimpath -buildvcs=false -ldflags "$flags" -o "$2/nodes" . >&2 || return
    for program in kubelet kube-proxy kube-scheduler; do
        ln -s nodes "$2/$program"
    done
}

compile_argocd() {
    local program definitions package=github.com/argoproj/argo-cd/v3
    # A release is told its version when it is built.
    go_on_source "$1" build -trimpath -buildvcs=false \
        -ldflags "-s -w -X $package/common.version=$(version_of "$package")" -o "$2/argocd" . >&2 || return
    for program in application-controller git-ask-pass health-test redis repo-server; do
        ln -s argocd "$2/argocd-$program"
    done
    definitions=$(go_on_source "$1" list -m -f '{{.Dir}}/manifests/crds' "$package") || return
    install -m 644 -D -t "$2/crds" "$definitions"/{application,appproject}-crd.yaml
}

# Fetches the modules that a program is made of; a network that is not there is no fault.
fetch_modules() {
    local errors
    if errors=$(go_on_source "$1" list -deps . 2>&1 >/dev/null); then
        return
    fi
    printf '%s\n' "$errors" >&2
    if grep -Eq 'dial tcp|proxyconnect|no such host|[Tt]imeout|disabled by GOPROXY=off' <<<"$errors"; then
        lacking "the Go modules of $2 cannot be downloaded: is the proxy that \`go env GOPROXY\` names reachable?"
    fi
    fail "the modules of $SOURCE/go.mod do not load (the reason is above)"
}

# Builds the Go module at $SOURCE and prints the folder of its programs, which is named by all that
# they are built from: another version, or another way to build, is another folder. Arguments: its
# name, its version, what it is in words, how long that takes, the function that compiles it, and
# how to do without Go.
go_programs() {
    local name=$1 version=$2 words=$3 long=$4 compile=$5 otherwise=$6 go work digest folder
    digest=$({ cat "$SOURCE"/{go.mod,go.sum,*.go} && declare -f "$compile" go_on_source; } | sha256sum)
    folder=$CACHE/$name-$version-${digest:0:12}
    if [[ ! -d $folder ]]; then
        go=$(find_go) || lacking "there is no Go 1.$GO_MINOR or later to build $words with$otherwise"
        lock
    fi
    # Another set-up may have built it while this one waited for the lock.
    if [[ ! -d $folder ]]; then
        say "building $words for tests ($long on 2 cores, once), into $CACHE"
        work=$(mktemp -d "$CACHE/.build-$name.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        fetch_modules "$go" "$words"
        "$compile" "$go" "$work" || fail "$words did not build (the reason is above)"
        chmod 755 "$work"
        mv -T "$work" "$folder"
        trap - EXIT
        say "built in $SECONDS s"
    fi
    echo "$folder"
}

control_plane() {
    if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
        echo "$KUBEBUILDER_ASSETS"
        return
    fi
    SOURCE=$TESTS/control-plane
    local etcd kubernetes
    etcd=$(version_of go.etcd.io/etcd/server/v3) kubernetes=$(version_of k8s.io/kubernetes)
    go_programs control-plane "$kubernetes" "etcd $etcd and Kubernetes $kubernetes" "6 to 8 minutes" \
        compile_control_plane ", and KUBEBUILDER_ASSETS is not set"
}

argocd() {
    SOURCE=$TESTS/argocd
    command -v git >/dev/null || lacking "there is no git, which Argo CD reads its repositories with"
    local version
    version=$(version_of github.com/argoproj/argo-cd/v3)
    go_programs argocd "$version" "Argo CD $version" "4 minutes" compile_argocd ""
}

nodes() {
    local missing
    mapfile -t missing < <(missing_of "${NODE_PACKAGES[@]}")
    if ((${#missing[@]})); then
        may_install || lacking "nodes run on Debian packages that are not installed, which needs root: ${missing[*]%%|*}"
        lock
        apt update -q || say "apt-get update failed: trying with the lists that are there"
        apt_install "${missing[@]}" || fail "apt-get could not install: ${missing[*]%%|*}"
    fi
    SOURCE=$TESTS/nodes
    local version
    version=$(version_of k8s.io/kubernetes)
    go_programs nodes "$version" "kubelet, kube-proxy and kube-scheduler $version" "5 minutes" compile_nodes ""
}

rustup_remedy() {
    cat <<REMEDY
with rustup 1.$RUST_MINOR or later:
  rustup toolchain install stable --component clippy rustfmt
  rustup toolchain install nightly --component rust-src
  cargo install bpf-linker
REMEDY
}

# What the rustup way lacks, one line each.
missing_for_rustup() {
    (($(rust_minor cargo) >= RUST_MINOR)) || echo "cargo 1.$RUST_MINOR or later (rustup toolchain install stable)"
    local sysroot
    sysroot=$(rustup run nightly rustc --print sysroot 2>/dev/null) || sysroot=
    [[ -d $sysroot/lib/rustlib/src/rust/library/core ]] ||
        echo "a nightly toolchain with rust-src (rustup toolchain install nightly --component rust-src)"
    [[ -n ${BPF_LINKER:-} ]] || command -v bpf-linker >/dev/null || echo "bpf-linker (cargo install bpf-linker)"
    local tool
    for tool in cc ip nsenter bpftool; do
        command -v "$tool" >/dev/null || echo "the command $tool"
    done
}

# Nothing can be installed: checks that a rustup toolchain has all, or says what is missing.
accept_rustup() {
    local lacking packages
    lacking=$(missing_for_rustup)
    [[ -z $lacking ]] && return
    packages=$(missing_packages | cut -d'|' -f1 | xargs)
    cat >&2 <<MISSING
setup: cannot install what is missing: that needs root and apt on Debian 12 or 13.

On Debian, as root:
  apt-get install --no-install-recommends $packages

Elsewhere, $(rustup_remedy)
of which this machine lacks:
  ${lacking//$'\n'/$'\n'  }
MISSING
    exit 1
}

# What boots other kernels.
kernels() {
    local packages=(qemu-system-x86 busybox-static)
    if ! dpkg-query -W -f='${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed | grep -qx 2; then
        may_install || fail "cannot install what is missing: that needs root and apt on Debian 12 or 13" \
            "  apt-get install --no-install-recommends ${packages[*]}"
        lock
        say "installing these Debian packages, which boot other kernels: ${packages[*]}"
        apt update -q || say "apt-get update failed: trying with the lists that are there"
        DEBIAN_FRONTEND=noninteractive apt install -y -q --no-install-recommends --no-remove "${packages[@]}" ||
            fail "apt-get could not install: ${packages[*]}"
    fi
    mkdir -p "$CACHE/kernels"
    echo "$CACHE/kernels"
}

set_up() {
    export PATH
    PATH=$(print_path)
    if [[ -z $(missing_packages) ]]; then
        install_bpf_linker
    elif may_install && lock && apt_offers_toolchain; then
        # Another set-up may have done it while this one waited for the lock.
        [[ -z $(missing_packages) ]] || install_packages
        install_bpf_linker
    else
        accept_rustup
    fi
    [[ $1 != check ]] || install_cargo_deny
}

case ${1:-build} in
path) print_path ;;
control-plane) control_plane ;;
argocd) argocd ;;
nodes) nodes ;;
kernels) kernels ;;
build | check) set_up "${1:-build}" ;;
*) fail "unknown part '$1': build, check, path, control-plane, argocd, nodes or kernels" ;;
esac
