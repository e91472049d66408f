#!/usr/bin/env bash
# A real Apptainer on Debian 12 from Debian's own mirror: it is packaged in sid only and wants
# glibc >= 2.38, so its package is unpacked under PREFIX (not installed) beside sid's libc6, and
# its two ELF files are pointed at that libc. The system's apt sources and libc stay as they are.
# usage: apptainer-install.sh [PREFIX]
set -euo pipefail
PREFIX=$(realpath -m "${1:-/opt/apptainer}")
SUDO=; [ "$(id -u)" = 0 ] || SUDO=sudo
need=(patchelf squashfs-tools squashfuse uidmap fuse2fs fuse-overlayfs fakeroot e2fsprogs ca-certificates)
missing=(); for p in "${need[@]}"; do dpkg -s "$p" >/dev/null 2>&1 || missing+=("$p"); done
[ ${#missing[@]} = 0 ] || DEBIAN_FRONTEND=noninteractive $SUDO apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
W=$(mktemp -d); trap 'rm -rf "$W"' EXIT
mkdir -p "$W"/{lists/partial,cache/archives/partial,debs}
# the mirror this machine already uses, suite sid, in apt directories of our own
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:?no Debian mirror in the apt sources} sid main" > "$W/sources.list"
apt=(apt-get -qq -o Dir::Etc::sourcelist="$W/sources.list" -o Dir::Etc::sourceparts=/dev/null
     -o Dir::State::Lists="$W/lists" -o Dir::Cache="$W/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update
(cd "$W/debs" && "${apt[@]}" download apptainer libc6 libseccomp2 libsqlite3-0)
rm -rf "$PREFIX"; mkdir -p "$PREFIX/lib.sid"
dpkg-deb -x "$W"/debs/apptainer_*.deb "$PREFIX"
for l in libc6 libseccomp2 libsqlite3-0; do
  dpkg-deb -x "$W"/debs/${l}_*.deb "$W/x"
done
find "$W/x" -path '*x86_64-linux-gnu/*' \( -name '*.so' -o -name '*.so.*' \) -not -path '*/gconv/*' -exec cp -a -t "$PREFIX/lib.sid" {} +
# --force-rpath: DT_RPATH outranks the LD_LIBRARY_PATH that apptainer sets when it runs unsquashfs in a sandbox
for b in "$PREFIX/usr/bin/apptainer" "$PREFIX/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"; do
  patchelf --force-rpath --set-rpath "$PREFIX/lib.sid" --set-interpreter "$PREFIX/lib.sid/ld-linux-x86-64.so.2" "$b"
done
# the binary is relocatable: it looks for ../etc and ../var beside bin (apptainer) and beside lib (starter)
mv "$PREFIX/etc" "$PREFIX/usr/etc"; mv "$PREFIX/var" "$PREFIX/usr/var"
ln -s ../etc "$PREFIX/usr/lib/etc"; ln -s ../var "$PREFIX/usr/lib/var"
mkdir -p "$PREFIX/bin"; ln -s ../usr/bin/apptainer "$PREFIX/bin/apptainer"; ln -s ../usr/bin/apptainer "$PREFIX/bin/singularity"
conf=$PREFIX/usr/etc/apptainer
# a root without CAP_SYS_RESOURCE (this VM's) is refused by `root default capabilities = full`: hand out what it has
if [ "$(id -u)" = 0 ]; then
  sed -i 's/^root default capabilities = .*/root default capabilities = file/' "$conf/apptainer.conf"
  python3 - > "$conf/capability.json" <<'PY'
import json
names = ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
         "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
         "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
         "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ").split()
have = int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("CapPrm")), 16)
print(json.dumps({"users": {"root": ["CAP_" + n for i, n in enumerate(names) if have >> i & 1]}, "groups": {}}))
PY
  # build --fakeroot as root wants a subordinate range for root
  for f in /etc/subuid /etc/subgid; do grep -q '^root:' $f || echo root:200000:65536 >> $f; done
fi
"$PREFIX/bin/apptainer" --version
