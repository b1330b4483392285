#!/usr/bin/env bash
# A real S3 server to test against: Ceph's radosgw over one monitor and one OSD that keeps everything in memory.
#
#   radosgw.sh DIRECTORY PORT MONITOR_PORT
#
# Serves http://127.0.0.1:PORT (path style, access key "test", secret key "test", no buckets) and prints "ready" when it
# does. Runs until its standard input ends or it is told to stop, and takes its daemons with it; what it keeps is below
# DIRECTORY. Needs Debian's radosgw, ceph-mon and ceph-osd; no root, no systemd, some 15 seconds to start.
set -euo pipefail

directory=$1 port=$2 monitor_port=$3
mkdir -p "$directory"/{monitor,osd,gateway,log}
cd "$directory"
exec 3>&1 5<&0 >log/commands 2>&1

daemons=()
stop() {
  trap - EXIT INT TERM
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill -KILL "${daemons[i]}" || true; done
}
trap stop EXIT
trap 'exit 0' INT TERM

# Runs a command until it succeeds, for at most 30 seconds.
until_true() {
  for _ in $(seq 150); do
    "$@" && return 0
    sleep 0.2
  done
  echo "gave up: $*" >&2
  return 1
}

cluster=$(cat /proc/sys/kernel/random/uuid)
export CEPH_CONF=$directory/ceph.conf
cat >ceph.conf <<CONF
[global]
fsid = $cluster
mon host = v2:127.0.0.1:$monitor_port
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
ms client mode = crc
ms bind msgr1 = false
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
keyring = $directory/keyring
run dir = $directory
admin socket =
log file = $directory/log/\$name
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
[mon]
mon data = $directory/monitor
mon data avail crit = 1
[osd]
osd data = $directory/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd class load list = *
osd class default list = *
[client.gateway]
rgw data = $directory/gateway
rgw frontends = beast endpoint=127.0.0.1:$port
rgw enable usage log = false
rgw enable ops log = false
rgw gc max objs = 7
CONF

# The monitor: authentication is off, but it will not start without a key to ignore.
ceph-authtool --create-keyring keyring --gen-key -n mon. --cap mon 'allow *'
for name in client.admin client.gateway; do
  ceph-authtool keyring --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
done
monmaptool --create --addv a "[v2:127.0.0.1:$monitor_port]" --fsid "$cluster" monitor.map
ceph-mon --mkfs -i a --monmap monitor.map --keyring keyring
ceph-mon -f -i a &
daemons+=($!)
until_true timeout 5 ceph mon stat

# The OSD.
osd=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$osd"
ceph-osd -i 0 --mkfs --osd-uuid "$osd"
ceph osd crush add osd.0 1.0 root=default host=local
ceph-osd -f -i 0 &
daemons+=($!)
osd_is_up() { ceph osd stat | grep -q '1 up'; }
until_true osd_is_up

# The gateway, and who may use it.
radosgw -f -n client.gateway &
daemons+=($!)
gateway_answers() { (exec 4<>"/dev/tcp/127.0.0.1/$port"); }
until_true gateway_answers
radosgw-admin -n client.gateway user create --uid=test --display-name=test --access-key=test --secret-key=test

echo ready >&3
cat <&5 >/dev/null &
wait $!
