# Whether a trivial sched_ext scheduler attaches, lets tasks run, and leaves again.
state() { [ "$(cat /sys/kernel/sched_ext/state)" = "$1" ]; }
wait_for() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        state "$1" && return 0
        sleep 0.1
    done
    echo "probe: sched_ext is $(cat /sys/kernel/sched_ext/state), not $1"
    return 1
}
[ -e /sys/kernel/sched_ext/state ] || { echo "probe: the kernel has no sched_ext"; exit 10; }
bpftool struct_ops register /lab/trivial.bpf.o || exit 11
wait_for enabled || exit 12
sleep 0.5
ls / > /dev/null
state enabled || { echo "probe: the scheduler did not last"; exit 13; }
bpftool struct_ops unregister name trivial || exit 14
wait_for disabled || exit 15
