#!/bin/bash
# in-vm.sh RUNTIME DIR [TEST...]: the suite in a virtual machine with AppArmor.
# DIR is shared with the host and has no owners; bundles go to the machine's own
# disk. The results are in DIR/v2.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The profile that one of the programs asks for.
echo 'profile acme_secure_profile flags=(attach_disconnected,mediate_deleted) {
  file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,
}' | apparmor_parser --skip-cache --replace
runtime=$1 dir=$2
shift 2
mkdir -p /var/lib/bundles
WORK=/var/lib/bundles bash "$dir/run-oci-validation.sh" "$runtime" "$dir" "$dir/v2" "$@"
