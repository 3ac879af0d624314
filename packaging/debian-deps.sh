#!/bin/sh
# Installs the Debian packages that building scx_joule, and running its lab, needs.
#
#   debian-deps.sh [build] [lab]     both when none is named
#
# Says what it installs, and is silent when nothing is missing. A machine whose own kernel has sched_ext needs only `build`.
# Exit codes: 0 all there; 1 not possible (one line says why); 2 wrong usage.
set -eu

# clang-19 compiles the BPF programs; libclang is what bindgen reads their headers with
build="ca-certificates clang-19 clang-format-19 gcc libc6-dev libclang-19-dev libelf-dev make pkg-config zlib1g-dev"
# the emulator and what the guests run; apt's keys for the kernels
lab="bpftool busybox-static debian-archive-keyring linux-perf qemu-system-x86 stress-ng util-linux"

die() {
	echo "debian-deps.sh: $1" >&2
	exit "${2:-1}"
}

wanted=
for set in "${@:-both}"; do
	case $set in
	both) wanted="$build $lab" ;;
	build) wanted="$wanted $build" ;;
	lab) wanted="$wanted $lab" ;;
	*) die "'$set': give build, lab, both words or none" 2 ;;
	esac
done

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
	die "this is not Debian or a relative of it; install what provides these packages: $wanted"

# a package counts when it, or another that provides its name, is installed
present=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Provides}\n' | sed -n 's/^.i //p' | tr ', ' '\n\n' | sed 's/[:(].*//')
missing=
for package in $wanted; do
	printf '%s\n' "$present" | grep -qxF "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	as_root=
elif command -v sudo >/dev/null; then
	as_root=sudo
else
	die "neither root nor sudo: as root, run: apt-get install$missing"
fi

echo "debian-deps.sh: installing$missing"
# an index from before a point release names files that the archive no longer has
$as_root apt-get -q update || die "the package index cannot be fetched; is the network up?"
# shellcheck disable=SC2086 # words are meant to split
problem=$(apt-get -s install --no-install-recommends $missing 2>&1 >/dev/null) ||
	die "$(printf '%s\n' "$problem" | sed -n 's/^E: //p' | head -n 1) (Debian 12 with its updates, or newer, has all of them)"
# shellcheck disable=SC2086 # words are meant to split
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing ||
	die "apt-get could not install$missing; what it says above is the reason"
