#!/bin/sh
# make-busybox.sh: write the root file system of the image "busybox" to
# standard output, as a tar archive: Debian's static busybox, a link per applet
# and the few files that programs expect in /etc.
set -eu

busybox=${BUSYBOX:-/bin/busybox}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

umask 022
cd "$root"
chmod 755 .
mkdir -p bin dev etc home proc root run sys tmp usr/bin usr/sbin var/spool/mail var/www
chmod 700 root
chmod 1777 tmp

cp "$busybox" bin/busybox
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln bin/busybox "bin/$applet"
done
ln -s ../../bin/env usr/bin/env

cat >etc/passwd <<'EOF'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
EOF
cat >etc/group <<'EOF'
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
kmem:x:9:
wheel:x:10:root
www-data:x:33:
operator:x:37:
utmp:x:43:
users:x:100:
nogroup:x:65534:
EOF
sed 's/^\([^:]*\):.*/\1:*:::::::/' etc/passwd >etc/shadow
chmod 600 etc/shadow
echo 'hosts: files dns' >etc/nsswitch.conf
echo '127.0.0.1 localhost' >etc/hosts
echo 'PRETTY_NAME="busybox from Debian packages"' >etc/os-release

tar --create --mtime="@$(stat -c %Y "$busybox")" --numeric-owner --owner=0 --group=0 --sort=name .
