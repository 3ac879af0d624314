# Shell functions of the guests' scripts.
vsoc=/sys/kernel/debug/vsoc
energy=$vsoc/energy_uj

# Ends the guest with the reason, and with what the scheduler said, if any.
fail() {
    echo "$1"
    cat /tmp/log 2>/dev/null
    exit 1
}
# say NAME COMMAND...: what a command prints becomes a section of the results.
say() {
    name=$1
    shift
    { echo "== $name"; "$@"; } >> $RESULTS || fail "$name: failed"
}
# Turns a switch of the virtual SoC.
control() { echo "$*" > $vsoc/control || fail "control $*"; }
governor() {
    for file in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
        echo $1 > $file
    done
}

state() { cat /sys/kernel/sched_ext/state; }
# Waits for a state of sched_ext.
await() {
    for _ in $(seq 1200); do
        [ "$(state)" = $1 ] && return
        sleep 0.05
    done
    fail "sched_ext is $(state), not $1"
}
# The scheduler as $pid, its words in /tmp/log.
start() {
    : > /tmp/log
    scx_joule "$@" >> /tmp/log 2>&1 &
    pid=$!
    await enabled
}
# Waits until it has started so many times, as it does anew when a CPU goes or comes.
started() {
    for _ in $(seq 1200); do
        [ "$(grep -c 'scheduling .* CPUs' /tmp/log)" = $1 ] && await enabled && return
        sleep 0.05
    done
    fail "not started $1 times"
}
stop() {
    kill -INT $pid
    wait $pid || fail "ended with exit code $?"
    await disabled
}
lasted() { [ "$(state)" = enabled ] || fail "did not last"; }
