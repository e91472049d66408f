#!/usr/bin/env bash
# Runs a command where every user can reach some folders, although they lie in closed ones (as a
# Python in /root does): in mounts of its own, in which the closed ones hold nothing else.
# usage: within-reach.sh FOLDER... -- COMMAND...; as root
set -euo pipefail
if [ "${1:-}" != inside ]; then exec unshare --mount "$0" inside "$@"; fi
shift
mount --make-rprivate /
here=$(pwd -P)
aside=$(mktemp -d)
mount -t tmpfs tmpfs "$aside"
folders=() closed=()
while [ "$1" != -- ]; do
  folder=$(realpath "$1"); shift
  top= at=
  IFS=/ read -ra names <<<"${folder#/}"
  for name in "${names[@]}"; do
    at=$at/$name
    if [ -z "$top" ] && [ $(($(stat -c 0%a "$at") & 1)) = 0 ]; then top=$at; fi
  done
  [ -n "$top" ] || continue
  [ "$top" != "$folder" ] || { echo "within-reach.sh: $folder itself is closed" >&2; exit 2; }
  mkdir "$aside/${#folders[@]}"
  mount --bind "$folder" "$aside/${#folders[@]}"
  folders+=("$folder") closed+=("$top")
done
shift
for top in $(printf '%s\n' "${closed[@]}" | sort -u); do mount -t tmpfs -o mode=755 tmpfs "$top"; done
for i in "${!folders[@]}"; do
  mkdir -p "${folders[$i]}"
  mount --move "$aside/$i" "${folders[$i]}"
done
if [ -e /dev/fuse ] && [ $((0$(stat -c %a /dev/fuse) & 6)) != 6 ]; then
  # open to all elsewhere: Apptainer mounts images by it
  mknod -m 666 "$aside/fuse" c 10 229
  mount --bind "$aside/fuse" /dev/fuse
  umount --lazy "$aside"
else
  umount "$aside"
fi
rmdir "$aside"
cd "$here" # by its new mount
exec "$@"
