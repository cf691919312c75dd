#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# check.sh [KDIR]: builds the module with W=1 and with sparse, and runs
# checkpatch --strict. Any warning is an error. KDIR is a kernel's build folder.
#
# CHECKPATCH names checkpatch.pl, if it is in neither KDIR nor $PATH. Debian has
# it in its linux-source packages. The check is left out, and said so, where it
# is not to be found.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
kdir=${1:-/lib/modules/$(uname -r)/build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die()
{
	echo "check.sh: $*" >&2
	exit 1
}

[ -f "$kdir/Makefile" ] || die "$kdir is not a kernel build folder; install linux-headers"
command -v sparse >/dev/null || die "sparse is not installed; apt-get install sparse"
cp "$here"/*.[ch] "$here/Kbuild" "$work"

build()
{
	echo "== make $*"
	if ! make -C "$kdir" M="$work" "$@" modules >"$work/log" 2>&1; then
		cat "$work/log" >&2
		die "make $* failed"
	fi
	if grep -E '(warning|error):' "$work/log" >&2; then
		die "make $* is not clean"
	fi
}

build W=1
make -C "$kdir" M="$work" clean >/dev/null
build C=2 CF=-D__CHECK_ENDIAN__

checkpatch=${CHECKPATCH:-}
for file in "$kdir/scripts/checkpatch.pl" "$kdir/source/scripts/checkpatch.pl"; do
	if [ -z "$checkpatch" ] && [ -f "$file" ]; then
		checkpatch=$file
	fi
done
[ -n "$checkpatch" ] || checkpatch=$(command -v checkpatch.pl || true)
if [ -n "$checkpatch" ]; then
	echo "== checkpatch --strict"
	cd "$here"
	for file in *.h *.c; do
		case $file in
		*.mod.c) continue ;;
		# versions are what this one is about
		compat.h) ignore=LINUX_VERSION_CODE,CONSTANT_COMPARISON ;;
		# the XenBus states have the names that the kernel gave them
		*) ignore=CAMELCASE ;;
		esac
		perl "$checkpatch" --no-tree --root="$here" --strict --terse \
			--no-summary --show-types --ignore "$ignore" -f "$file" ||
			die "checkpatch is not content with $file"
	done
else
	echo "== checkpatch left out: set CHECKPATCH to checkpatch.pl of a kernel source"
fi
echo "clean"
