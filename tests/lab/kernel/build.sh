# Builds the lab's kernel. Runs in a Debian tree with a compiler, in the directory that holds lab.config and the packed
# sources; $1 is the compiler, $2 what the release ends in, $3 how many jobs. Leaves vmlinuz, config, release, and in
# headers what modules are built with.
set -e
mkdir source
tar -xf linux-source-*.tar.xz -C source --strip-components=1
cd source
# Debian's compilers bear their version in their names; modules are built with the same one
sed -i "s/^\(HOSTCC\t= \)gcc\$/\1$1/; s/^\(CC\t\t= \)\$(CROSS_COMPILE)gcc\$/\1$1/" Makefile
[ $(grep -c "^\(HOST\)\?CC[[:space:]]*= $1\$" Makefile) = 2 ] || { echo 'the Makefile names its compilers otherwise'; exit 1; }
make KCONFIG_ALLCONFIG=../lab.config allnoconfig
# kconfig drops without a word what it does not know or what lacks something
grep 'CONFIG_' ../lab.config | while read -r option; do
    grep -qxF "$option" .config || echo "$option"
done > ../missing
if [ -s ../missing ]; then
    echo 'not to be had with these sources:'
    cat ../missing
    exit 1
fi
make -j "$3" LOCALVERSION="$2" bzImage modules
release=$(make LOCALVERSION="$2" -s kernelrelease)
echo "$release" > ../release
# laid out as Debian's packages of headers are
make run-command KBUILD_RUN_COMMAND="\$(srctree)/scripts/package/install-extmod-build ../headers/usr/src/linux-headers-$release"
mkdir -p "../headers/usr/lib/linux-kbuild-$release"
cp arch/x86/boot/bzImage ../vmlinuz
cp .config ../config
cd ..
rm -r source linux-source-*.tar.xz lab.config missing
