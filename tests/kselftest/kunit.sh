#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The KUnit tests of the module's pure files, as lines of TAP of their own (kernel/kunit.c).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

dmesg -C
check "the tests' module loads" insmod scribe_kunit.ko
while read -r result name; do
	check "kunit: $name" test "$result" = ok
done < <(dmesg | sed -nE 's/^.*\] +(# )?(ok|not ok) [0-9]+ -? ?(.*)$/\2 \3/p' | sed 's/^not ok/not_ok/')
check "it found tests" test "$tests" -gt 6
check "it unloads" rmmod scribe_kunit
finish
