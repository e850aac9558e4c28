#!/bin/sh
# Process 1 of a container: makes its root file system, then runs its command and passes signals on.
#   container-init.sh STAGE LAYER PIDFILE [ro|rw SOURCE TARGET]... -- COMMAND...
# Started in fresh mount, pid, uts, ipc and cgroup namespaces, in the pod's network namespace. The root is the machine's,
# under an overlay that ends with the container: what a container writes, the machine never sees.
set -eu
stage=$1 layer=$2 pidfile=$3
shift 3
# Held open, for the file will be out of sight when there is something to say: the machine's number of this process,
# and in the end its exit code, for whoever is not its parent.
exec 3> "$pidfile"
mount -t tmpfs -o mode=755,size=256m tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
cp -a "$layer/." "$stage/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" "$stage/root"
cd "$stage/root"
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/pts dev/shm .old
mount --bind /dev/pts dev/pts
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty dev/
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
read -r name < etc/hostname
echo "$name" > /proc/sys/kernel/hostname
# This /proc is still the machine's: it knows this process by the number that the machine has for it.
read -r pid rest < /proc/self/stat
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
pivot_root . .old
cd /
# From here on a path is the container's, whatever symbolic links there are in it; the machine's are below /.old.
while [ "$1" != -- ]; do
  if [ -d "/.old$2" ]; then
    mkdir -p "$3"
  else
    mkdir -p "$(dirname "$3")"
    : >> "$3"
  fi
  mount --bind "/.old$2" "$3"
  [ "$1" = rw ] || mount -o remount,bind,ro "$3"
  shift 3
done
shift
# Without this, the container would keep every other pod's network namespace alive.
umount -l /.old
rmdir /.old
child=
trap '[ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM
"$@" 3>&- &
child=$!
echo "$pid" >&3
while :; do
  status=0
  wait "$child" || status=$?
  kill -0 "$child" 2> /dev/null && continue
  echo "$status" >&3
  exit "$status"
done
