//! What a guest's console says about its health.

/// A line that means trouble in the kernel, whatever the script's exit code was.
///
/// A scheduler that is unregistered is reported too, at a lower level that does not reach the console and
/// with words of its own; only the other ways of being disabled count.
pub fn is_alarm(line: &str) -> bool {
    const ALARMS: [&str; 12] = [
        "Kernel panic",
        "BUG:",
        "kernel BUG at",
        "Oops:",
        "WARNING: ",
        "general protection fault",
        "soft lockup",
        "hard LOCKUP",
        "rcu_preempt detected",
        "rcu: INFO: rcu_",
        "blocked for more than",
        "Unable to handle",
    ];
    let disabled = line.contains("sched_ext: ")
        && line.contains(" disabled (")
        && !line.contains("disabled (unregistered from user space)");
    let stamped = line.trim_start().starts_with('[');
    disabled || (stamped && ALARMS.iter().any(|alarm| line.contains(alarm)))
}

/// The alarming lines of a console, in order.
pub fn alarms(console: &str) -> Vec<String> {
    console
        .lines()
        .filter(|line| is_alarm(line))
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// What the script printed: a console without the kernel's lines, which begin with a time stamp.
pub fn without_kernel(console: &str) -> String {
    let is_stamped = |line: &str| {
        line.strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .is_some_and(|(stamp, _)| stamp.trim_start().parse::<f64>().is_ok())
    };
    console
        .lines()
        .filter(|line| !is_stamped(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_found() {
        for line in [
            "[    1.0] Kernel panic - not syncing: Attempted to kill init!",
            "[    1.0] WARNING: kernel/sched/ext.c:12 at foo, CPU#1: x/12",
            "[    1.0] watchdog: BUG: soft lockup - CPU#3 stuck for 22s!",
            "[    2.1] sched_ext: BPF scheduler \"joule\" disabled (runnable task stall)",
            "[    2.1] Oops: general protection fault, probably for non-canonical address",
        ] {
            assert!(is_alarm(line), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_left_alone() {
        for line in [
            "[    0.7] mtrr: your CPUs had inconsistent fixed MTRR settings",
            "[    2.1] sched_ext: BPF scheduler \"joule\" enabled",
            "[    2.1] sched_ext: BPF scheduler \"joule\" disabled (unregistered from user space)",
            "[    2.1] reboot: Power down",
            "the script itself says WARNING: something",
        ] {
            assert!(!is_alarm(line), "{line}");
        }
    }

    #[test]
    fn what_the_script_printed_is_told_from_what_the_kernel_did() {
        let console = "[    0.7] mtrr: x\nhello\n[    2.1] reboot: Power down\n";
        assert_eq!(without_kernel(console), "hello\n");
        assert_eq!(without_kernel("[main] hello\n"), "[main] hello\n");
    }
}
