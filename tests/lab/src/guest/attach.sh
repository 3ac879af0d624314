# Attaching a sched_ext scheduler, and seeing whether it lasts. Set above: $scheduler and $arguments.
state=/sys/kernel/sched_ext/state
# how many times a scheduler was enabled
times=/sys/kernel/sched_ext/enable_seq
pid=
# await STATE: false when the scheduler has ended, or after 300 s
await() {
    waited=0
    while [ "$(cat $state)" != $1 ]; do
        sleep 0.1
        waited=$((waited + 1))
        [ $waited -lt 3000 ] && { [ -z "$pid" ] || [ -d /proc/$pid ]; } || return 1
    done
}
last_words() {
    said=$(tail -n 1 /tmp/scheduler.log 2>/dev/null)
    echo "${said:-it says nothing}"
}
# attach_program: leaves $pid, or false and $reason
attach_program() {
    before=$(cat $times)
    $scheduler $arguments > /tmp/scheduler.log 2>&1 &
    pid=$!
    if ! await enabled; then
        reason="$scheduler did not attach: $(last_words)"
        kill -KILL $pid
        return 1
    fi
    # the kernel counts after it has said so
    while attached=$(cat $times); [ $attached = $before ]; do sleep 0.01; done
}
# whether it is still the one that was attached
lasted() { [ "$(cat $state)" = enabled ] && [ "$(cat $times)" = "$attached" ]; }
