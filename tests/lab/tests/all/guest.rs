//! The harness itself: what goes in comes out, and what goes wrong is told.

use crate::common::{lab, run, section, succeed};
use lab::cache::Cache;
use lab::guest::Guest;
use lab::initramfs::Archive;
use std::fs::File;
use std::process::Command;
use std::time::Duration;

/// Fails with the first line in which two texts differ.
fn assert_same(one: &str, other: &str) {
    let difference = one
        .lines()
        .zip(other.lines())
        .find(|(one, other)| one != other);
    assert_eq!(difference, None);
    assert_eq!(one.len(), other.len());
    assert!(one.contains("Linux version"), "{one}");
}

/// Two tests that compare the same scheduler on the same machine read each other's results once.
#[test]
fn a_run_waits_for_one_of_the_same_name() {
    let directory = lab::guest::logs().join("test-twins");
    std::fs::create_dir_all(&directory).unwrap();
    let other = File::create(directory.join("lock")).unwrap();
    other.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| succeed(&lab().guest("twins").script("echo done >> $RESULTS")));
        // several times as long as such a run takes
        std::thread::sleep(Duration::from_secs(10));
        assert!(!waiting.is_finished());
        other.unlock().unwrap();
        assert_eq!(waiting.join().unwrap().results, "done\n");
    });
}

#[test]
fn files_programs_results_and_the_exit_code_pass_through() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("adder.c");
    let program = directory.path().join("adder");
    std::fs::write(
        &source,
        "#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
         int main(int n, char **v) { printf(\"%.0f\\n\", cbrt(atof(v[n - 1]))); return 0; }\n",
    )
    .unwrap();
    let built = Command::new("gcc")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .args(["-no-pie", "-fno-builtin", "-lm"])
        .status()
        .unwrap();
    assert!(built.success());

    let outcome = run(&lab()
        .guest("through")
        .program(&program)
        .file(&source, "/etc/deep/copy.c")
        .text("/etc/text", "a text\n")
        .script(
            "{ echo '== release'; uname -r; echo '== root'; adder 27; echo '== text'; cat /etc/text
               echo '== copy'; wc -c < /etc/deep/copy.c; echo '== cpus'; nproc
               echo '== config'; grep SCHED_CLASS_EXT= /boot/config-$(uname -r)
               echo '== mounts'; cut -d' ' -f3 /proc/mounts | sort -u | tr '\\n' ' '; } >> $RESULTS
             echo to the console; exit 42",
        ));
    assert_eq!(outcome.exit_code, Some(42), "{}", outcome.console);
    assert!(outcome.console.contains("to the console"));
    let has = |name, text: &str| assert_eq!(section(&outcome.results, name).trim(), text);
    has("release", &lab().kernel.release);
    has("root", "3");
    has("text", "a text");
    has("copy", &std::fs::read(&source).unwrap().len().to_string());
    has("cpus", "8");
    has("config", "CONFIG_SCHED_CLASS_EXT=y");
    let mounts = section(&outcome.results, "mounts");
    for kind in [
        "proc", "sysfs", "devtmpfs", "tmpfs", "bpf", "debugfs", "tracefs", "cgroup2",
    ] {
        assert!(
            mounts.split_whitespace().any(|it| it == kind),
            "{kind}: {mounts}"
        );
    }
    let error = outcome.success().unwrap_err().to_string();
    assert!(
        error.contains("exit code 42") && error.contains("to the console"),
        "{error}"
    );
}

#[test]
fn a_guest_that_never_ends_is_ended() {
    let guest = lab()
        .guest("endless")
        .time_limit(Duration::from_secs(4))
        .script("echo started; while :; do :; done");
    let outcome = run(&guest);
    assert!(outcome.timed_out && outcome.exit_code.is_none());
    assert!(outcome.console.contains("started"));
    let error = outcome.success().unwrap_err().to_string();
    assert!(error.contains("ran out of time"), "{error}");
}

#[test]
fn a_guest_that_panics_is_reported_with_its_last_lines() {
    let outcome = run(&lab().guest("panic").script("echo c > /proc/sysrq-trigger"));
    assert_eq!(outcome.exit_code, None);
    assert!(!outcome.timed_out);
    let error = outcome.success().unwrap_err().to_string();
    assert!(
        error.contains("Kernel panic") && error.contains("console.log"),
        "{error}"
    );
}

#[test]
fn a_script_that_succeeds_in_spite_of_a_complaining_kernel_has_not_succeeded() {
    let script = "echo '<4>WARNING: CPU: 0 PID: 1 at kernel/none.c:1' > /dev/kmsg";
    let outcome = run(&lab().guest("warning").script(script));
    assert_eq!(outcome.exit_code, Some(0));
    let error = outcome.success().unwrap_err().to_string();
    assert!(
        error.contains("complains") && error.contains("none.c"),
        "{error}"
    );
}

#[test]
fn a_library_that_is_missing_or_a_machine_that_cannot_be_is_told_before_the_boot() {
    let error = lab().guest("none").program("/no/such/program").run();
    assert!(error.unwrap_err().to_string().contains("/no/such/program"));
    assert!(lab().guest("none").cpus(3, 2).run().is_err());
}

#[test]
fn an_archive_with_a_program_and_its_libraries_is_bit_identical_when_made_again() {
    let archive = || {
        let mut archive = Archive::new();
        let shell = lab::process::find("bpftool".as_ref()).unwrap();
        archive.program(&shell).unwrap();
        archive.to_bytes()
    };
    assert_eq!(archive(), archive());
}

/// The cache keeps booted machines, so a boot that is really another one needs another cache. Between the
/// ring of the doorbell and the stop, idle CPUs may get some more time: interrupts are not compared.
#[test]
fn two_boots_give_the_same_kernel_log_to_the_bit() {
    let lab = lab();
    let log = |number: usize| {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let name = format!("test-boot-{number}");
        let guest = Guest::new(&cache, &lab.kernel, &name).cpus(4, 1);
        succeed(&guest.script("dmesg >> $RESULTS")).results
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| log(2));
        (log(1), other.join().unwrap())
    });
    assert_same(&one, &other);
}

#[test]
fn two_runs_are_the_same_to_the_bit_interrupts_and_random_numbers_included() {
    let traces = |name| {
        let script = "{ dmesg; cat /proc/interrupts /proc/stat; head -c 64 /dev/urandom | hexdump; } >> $RESULTS";
        succeed(&lab().guest(name).script(script)).results
    };
    assert_same(&traces("same-1"), &traces("same-2"));
}
