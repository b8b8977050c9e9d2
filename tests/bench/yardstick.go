package main

// The yardstick's scripts. Each does what no builder can do without: make the
// files, show them to a process on an overlay, read them once for a digest.

// stepScript: each step runs in a mount namespace on top of those before.
const stepScript = `set -e
lower=$BASE i=1
while [ $i -le $steps ]; do
	mkdir -p $i/upper $i/work $i/root
	unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" "$2" && exec chroot "$2" /bin/sh -c "$3"' sh \
		"lowerdir=$lower,upperdir=$i/upper,workdir=$i/work$OVERLAY" $i/root "echo $i >/step$i"
	tar -c -C $i/upper . | sha256sum >$i/digest
	lower=$i/upper:$lower
	i=$((i+1))
done
`

// makeScript: one step that makes many files.
const makeScript = `set -e
mkdir upper work root
unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" root && exec chroot root /bin/sh -c "$2"' sh \
	"lowerdir=$BASE,upperdir=upper,workdir=work$OVERLAY" \
	"i=0; mkdir /f; while [ \$i -lt $files ]; do echo \$i >/f/\$i; i=\$((i+1)); done"
tar -c -C upper . | sha256sum >digest
`

// copyScript: a copy and a digest of its tar stream.
const copyScript = `set -e
mkdir upper
cp -a "$CONTEXT/src" upper/src
tar -c -C upper . | sha256sum >digest
`

// statScript: looking whether anything changed.
const statScript = `set -e
find "$CONTEXT/src" -printf '%P %i %s %T@ %C@ %m %U %G\n' | sha256sum >digest
`

// stageScript: four steps side by side, then their files together.
const stageScript = `set -e
for i in 0 1 2 3; do
	mkdir -p $i/upper $i/work $i/root
	{
		unshare $UNSHARE --mount sh -c 'mount -t overlay overlay -o "$1" "$2" && exec chroot "$2" /bin/sh -c "$3"' sh \
			"lowerdir=$BASE,upperdir=$i/upper,workdir=$i/work$OVERLAY" $i/root "sleep $sleep && echo $i >/stage"
		tar -c -C $i/upper . | sha256sum >$i/digest
	} &
done
wait
for i in 0 1 2 3; do
	mkdir -p copy$i
	cp -a $i/upper/stage copy$i/stage$i
	tar -c -C copy$i . | sha256sum >copy$i/digest
done
`
