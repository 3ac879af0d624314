# Runs a workload once per seed under a scheduler ($scheduler, $arguments, $seeds, $seconds, $warmup are set above).
for governor in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
    grep -q schedutil ${governor%governor}available_governors && echo schedutil > $governor
done
state=/sys/kernel/sched_ext/state
await() {
    waited=0
    while [ "$(cat $state)" != $1 ]; do
        sleep 0.1
        waited=$((waited + 1))
        [ $waited -lt 1200 ] && { [ -z "$pid" ] || [ -d /proc/$pid ]; } || return 1
    done
}
fail() {
    echo "schedule: $1"
    tail -n 12 /tmp/scheduler.log 2>/dev/null
    exit 1
}
pid=
case $scheduler in
eevdf-eas)
    [ "$(cat /proc/sys/kernel/sched_energy_aware)" = 1 ] || fail "the kernel's EAS is not on"
    ;;
eevdf)
    echo 0 > /proc/sys/kernel/sched_energy_aware
    ;;
*)
    $scheduler $arguments > /tmp/scheduler.log 2>&1 &
    pid=$!
    await enabled || fail "$scheduler did not attach"
    attached=$(cat /sys/kernel/sched_ext/enable_seq)
    ;;
esac
for seed in $seeds; do
    joule-load run /lab/workload.json --seed $seed --duration $seconds --warmup $warmup \
        --meter /sys/kernel/debug/vsoc/energy_uj --json >> $RESULTS || fail "joule-load failed"
done
if [ -n "$pid" ]; then
    # what it says of itself, where it can
    $scheduler --monitor 1 --json 2>/dev/null | head -n 1 >> $RESULTS
    [ "$(cat $state)" = enabled ] || fail "$scheduler did not last"
    [ "$(cat /sys/kernel/sched_ext/enable_seq)" = "$attached" ] || fail "$scheduler had to be restarted"
    kill -INT $pid
    wait $pid || fail "$scheduler ended with exit code $?"
    pid=
    await disabled || fail "$scheduler did not leave"
fi
