# Counts what a scheduler's programs execute under a load. attach.sh attaches it; $caches and $windows are set above.
fail() {
    echo "cost: $1"
    tail -n 12 /tmp/scheduler.log 2>/dev/null
    exit 1
}
snapshot() {
    echo "{\"snapshot\":$(bpftool --json prog show)}" >> $RESULTS
}
found=$(cat /sys/devices/system/cpu/cpu*/cache/index3/shared_cpu_list | sort -u | wc -l)
[ $found = $caches ] || fail "the machine has $found last-level caches, not $caches"
if [ $scheduler = scx_joule ]; then
    # only it has groups; the JSON is of many lines, a result of one
    echo "{\"check\":$(scx_joule check --json | tr -d '\n')}" >> $RESULTS
fi
attach_program || fail "$reason"
sysctl -q kernel.bpf_stats_enabled=1 || fail "the kernel keeps no statistics of programs"
# each window with other phases: an interruption that falls on the same callback in every period of one does
# not in the others
for seed in $(seq $windows); do
    joule-load run /lab/workload.json --seed $seed --duration 600 --work loop --calibration 8 > /tmp/load.log 2>&1 &
    load=$!
    sleep 0.2
    snapshot
    sleep 0.5
    snapshot
    [ -d /proc/$load ] || fail "joule-load failed: $(tail -n 1 /tmp/load.log)"
    kill -INT $load
    wait $load
done
# a program's file tells what bpftool leaves out; of links, which name a program too, the awk keeps nothing
verified=$(awk '/^prog_id:/ { id = $2 } /^verified_insns:/ { printf "%s\"%s\":%s", comma, id, $2; comma = "," }' \
    /proc/$pid/fdinfo/* 2>/dev/null)
echo "{\"verified\":{$verified}}" >> $RESULTS
lasted || fail "$scheduler did not last: $(last_words)"
