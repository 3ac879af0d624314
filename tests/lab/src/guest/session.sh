# Runs workloads one after the other under a scheduler, which attach.sh attaches. Set above: $runs, words of
# the form NAME:SEED:SECONDS (none: as the workload says); $warmup, before each; $settle, before all
# (none: 0); $watch, threads to trace.
# Each run leaves a section of the results that begins with '== NAME SEED'. What spoils a run is said in a
# line 'void REASON' of it, and the next run is tried.
vsoc=/sys/kernel/debug/vsoc
for governor in /sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
    grep -q schedutil ${governor%governor}available_governors && echo schedutil > $governor
done
void() { echo "void $*" | tr '\n' ' ' >> $RESULTS; echo >> $RESULTS; }

# The scheduler, or $reason why it cannot be had.
reason=
attach() {
    case $scheduler in
    eevdf-eas)
        [ "$(cat /proc/sys/kernel/sched_energy_aware)" = 1 ] || reason="the kernel's EAS is not on"
        ;;
    eevdf)
        echo 0 > /proc/sys/kernel/sched_energy_aware
        ;;
    *)
        attach_program
        ;;
    esac
    [ -z "$reason" ]
}
counts() {
    awk '$1 == "ctxt" { print "'$1'_switches", $2 }' /proc/stat
    awk '$1 ~ /depth|sleep/ { exits += $NF } END { print "'$1'_idle_exits", exits }' $vsoc/truth
}
kernel_said() { dmesg -c | sed 's/^/kernel /'; }
trace=/sys/kernel/tracing
switches=$trace/events/sched/sched_switch
placements() {
    awk '/overrun|dropped/ { lost += $NF } END { if (lost) print "void", lost, "events lost" }' $trace/per_cpu/cpu*/stats
    sed -n 's/^.*\[0*\([0-9][0-9]*\)\] [^ ]* *\([0-9.]*\): sched_switch: .*next_comm=\([^ ]*\) .*/ran \2 \1 \3/p' \
        $trace/trace
    echo > $trace/trace
}
if [ -n "$watch" ]; then
    echo mono > $trace/trace_clock
    echo 1024 > $trace/buffer_size_kb
    echo "next_comm ~ \"$watch\"" > $switches/filter
    echo 1 > $switches/enable
fi

if attach && [ $settle -gt 0 ]; then
    joule-load run /lab/settle.json --duration $settle > /tmp/settle 2>&1 || reason="joule-load failed: $(tail -n 1 /tmp/settle)"
fi
[ $warmup = 0 ] && warmup=
dmesg -c > /dev/null
for run in $runs; do
    name=${run%%:*}
    seconds=${run##*:}
    seed=${run%:*}
    seed=${seed#*:}
    echo "== $name $seed" >> $RESULTS
    [ -n "$reason" ] && { void "$reason"; continue; }
    counts before >> $RESULTS
    joule-load run /lab/$name.json --seed $seed ${seconds:+--duration $seconds} ${warmup:+--warmup $warmup} \
        --meter $vsoc/energy_uj --json >> $RESULTS 2> /tmp/load || void "joule-load failed: $(tail -n 1 /tmp/load)"
    counts after >> $RESULTS
    [ -z "$watch" ] || placements >> $RESULTS
    kernel_said >> $RESULTS
    if [ -n "$pid" ] && ! lasted; then
        void "$scheduler did not last: $(last_words)"
        kill -KILL $pid
        wait $pid
        attach
    fi
done
echo "== end" >> $RESULTS
if [ -n "$pid" ] && [ -z "$reason" ]; then
    # what it says of itself, where it can
    $scheduler --monitor 1 --json 2>/dev/null | head -n 1 | grep '^{' >> $RESULTS
    kill -INT $pid
    wait $pid || void "$scheduler ended with exit code $?"
    pid=
    await disabled || void "$scheduler did not leave"
fi
kernel_said >> $RESULTS
