# Sets up the machine if there is one, runs the script, reports its exit code and powers off.
# Results leave when all is over: a serial port is served by the host in its own time, and writing to it
# in between would make two runs differ.
export RESULTS=/tmp/results
: > $RESULTS
code=0
if [ -e /lab/vsoc.ko ]; then
    insmod /lab/vsoc.ko && cat /lab/machine > /sys/kernel/debug/vsoc/machine || code=@REFUSED@
fi
if [ $code = 0 ]; then
    @SHELL@
    code=$?
fi
cat $RESULTS > /dev/ttyS2
echo $code > /dev/ttyS1
sync
poweroff -f
