#!/usr/bin/env bash
# PID 1 of a node: gives it a view of the file system of its own, then reaps what is orphaned.
#   node-init.sh NAME FOLDER
# It runs in namespaces of its own; nothing that it mounts is seen outside.
set -euo pipefail
readonly NAME=$1 FOLDER=$2

# Where each hierarchy of control groups is mounted, and which it is; to be asked before /sys is
# replaced. Of what the mount says only the controllers, or the name, are to be said again.
hierarchies() {
    local number parent device root target options rest source super
    while read -r number parent device root target options rest; do
        [[ $rest == *"- cgroup "* ]] || continue
        read -r source super <<<"${rest#*- cgroup }"
        echo "$target $(tr , '\n' <<<"$super" |
            grep -vE '^(rw|ro|relatime|xattr|clone_children|cpuset_v2_mode|noprefix|release_agent=.*)$' | paste -sd,)"
    done </proc/self/mountinfo
}

mount_cgroups() {
    local target controllers
    if [[ $1 == cgroup2fs ]]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        return
    fi
    mount -t tmpfs tmpfs /sys/fs/cgroup
    while read -r target controllers; do
        mkdir -p "$target"
        mount -t cgroup -o "$controllers" cgroup "$target"
    done <<<"$2"
}

# kubelet sets these of the whole machine, unless they are as it wants them.
hide_tunables() {
    local path value
    while read -r path value; do
        echo "$value" >"$FOLDER/tunables/${path//\//.}"
        mount --bind "$FOLDER/tunables/${path//\//.}" "/proc/sys/$path"
    done <<'TUNABLES'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
TUNABLES
}

hostname "$NAME"
mount -t proc proc /proc
kind=$(stat -f -c %T /sys/fs/cgroup) all=$(hierarchies)
mount -t sysfs sysfs /sys
mount_cgroups "$kind" "$all"
mount -t bpf bpf /sys/fs/bpf
hide_tunables
echo 1 >/proc/sys/net/ipv4/ip_forward
for folder in /run /var/log /var/lib; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
for folder in containerd kubelet; do
    mkdir "/var/lib/$folder"
    mount --bind "$FOLDER/$folder" "/var/lib/$folder"
done
# kubelet and the containers are to see each other's mounts.
mount --make-rshared /
touch "$FOLDER/ready"
while :; do
    sleep infinity &
    wait $! || true
done
