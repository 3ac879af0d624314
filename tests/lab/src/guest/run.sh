# Sets up the machine if there is one, runs the script, reports its exit code and powers off.
export RESULTS=/dev/ttyS2
code=0
if [ -e /lab/vsoc.ko ]; then
    insmod /lab/vsoc.ko && cat /lab/machine > /sys/kernel/debug/vsoc/machine || code=@REFUSED@
fi
if [ $code = 0 ]; then
    @SHELL@
    code=$?
fi
echo $code > /dev/ttyS1
sync
poweroff -f
