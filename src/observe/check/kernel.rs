//! What the kernel brings, and what it allows this process.

use super::{Area, Finding, State};
use crate::sysroot::SysRoot;
use std::io::Read;

/// The first release with sched_ext.
const FIRST: (u32, u32) = (6, 12);

/// A kernel's configuration has some 300 kB; more than this is not one.
const MAX_CONFIG: u64 = 16 << 20;

/// `uname -r` of the machine.
pub(super) fn release(sys: &SysRoot) -> Option<String> {
    sys.text("proc/sys/kernel/osrelease")
        .ok()
        .flatten()
        .filter(|release| !release.is_empty())
}

/// Everything the scheduler needs of the kernel.
pub(super) fn findings(sys: &SysRoot, release: Option<&str>) -> Vec<Finding> {
    let config = Config::read(sys, release);
    let mut findings = vec![
        sched_ext(sys, release, &config),
        btf(sys),
        config.finding(release),
    ];
    findings.extend(jit(sys));
    findings
}

fn sched_ext(sys: &SysRoot, release: Option<&str>, config: &Config) -> Finding {
    let finding =
        |state, detail: String| Finding::new(Area::Kernel, "sched_ext", state, detail).required();
    let state = match sys.text("sys/kernel/sched_ext/state") {
        Ok(Some(state)) => state,
        Ok(None) => {
            let why = match (
                config.has("CONFIG_SCHED_CLASS_EXT"),
                release.and_then(version),
            ) {
                (Some(false), _) => "this kernel was built without it (CONFIG_SCHED_CLASS_EXT)",
                (_, Some(version)) if version < FIRST => "this kernel is older than 6.12",
                _ => "this kernel shows no /sys/kernel/sched_ext",
            };
            return finding(State::Missing, why.to_owned())
                .fix("boot a kernel from 6.12 on with CONFIG_SCHED_CLASS_EXT=y");
        }
        Err(error) => return finding(State::Missing, error.to_string()),
    };
    if state == "disabled" {
        return finding(State::Ok, "there, and no scheduler is attached".to_owned());
    }
    let root = sys.text("sys/kernel/sched_ext/root/ops").ok().flatten();
    match root.as_deref() {
        Some(ops) if is_ours(ops) => finding(State::Ok, format!("{state}: {ops} is running")),
        ops => {
            let ops = ops.unwrap_or("a scheduler without a name");
            finding(State::Missing, format!("{state}: {ops} holds it"))
                .fix("sudo systemctl stop scx.service scx_loader.service, or end that scheduler")
        }
    }
}

/// Whether this scheduler holds the kernel's CPUs already.
pub(super) fn is_running(sys: &SysRoot) -> bool {
    let ops = sys.text("sys/kernel/sched_ext/root/ops").ok().flatten();
    ops.is_some_and(|ops| is_ours(&ops))
}

/// The kernel shows the name of the ops, which may carry a version.
fn is_ours(ops: &str) -> bool {
    let name = ops.strip_prefix("scx_").unwrap_or(ops);
    name.strip_prefix("joule")
        .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

fn btf(sys: &SysRoot) -> Finding {
    const FILE: &str = "sys/kernel/btf/vmlinux";
    let (state, detail) = match sys.exists(FILE) {
        true => (State::Ok, format!("/{FILE}")),
        false => (
            State::Missing,
            format!("no /{FILE}: BPF programs cannot be fitted to this kernel"),
        ),
    };
    let finding = Finding::new(Area::Kernel, "BTF", state, detail).required();
    match state {
        State::Missing => finding.fix("boot a kernel with CONFIG_DEBUG_INFO_BTF=y"),
        _ => finding,
    }
}

/// sched_ext programs run only as machine code. No finding on a machine that has no such switch.
fn jit(sys: &SysRoot) -> Option<Finding> {
    let switch: Option<u8> = sys
        .value("proc/sys/net/core/bpf_jit_enable", "a number")
        .ok()?;
    let finding = |state, detail| Finding::new(Area::Kernel, "BPF JIT", state, detail).required();
    Some(match switch? {
        0 => finding(State::Missing, "switched off").fix("sudo sysctl net.core.bpf_jit_enable=1"),
        _ => finding(State::Ok, "on"),
    })
}

/// The kernel's build configuration, which libbpf reads from the same two places.
enum Config {
    Found { place: String, text: String },
    Absent { why: String },
}

impl Config {
    fn read(sys: &SysRoot, release: Option<&str>) -> Self {
        let boot = format!("boot/config-{}", release.unwrap_or("unknown"));
        let mut why = format!("neither /{boot} nor /proc/config.gz is there");
        match sys.text(&boot) {
            Ok(Some(text)) => {
                return Self::Found {
                    place: format!("/{boot}"),
                    text,
                };
            }
            Ok(None) => {}
            Err(error) => why = error.to_string(),
        }
        match sys.bytes("proc/config.gz") {
            Ok(Some(packed)) => {
                let mut text = String::new();
                let unpacked = flate2::read::GzDecoder::new(packed.as_slice());
                match unpacked.take(MAX_CONFIG).read_to_string(&mut text) {
                    Ok(_) => {
                        return Self::Found {
                            place: "/proc/config.gz".to_owned(),
                            text,
                        };
                    }
                    Err(error) => why = format!("/proc/config.gz: {error}"),
                }
            }
            Ok(None) => {}
            Err(error) => why = error.to_string(),
        }
        Self::Absent { why }
    }

    /// Whether the option is built in; `None` without a configuration.
    fn has(&self, option: &str) -> Option<bool> {
        match self {
            Self::Found { text, .. } => {
                let set = |line: &str| line.trim_end().strip_suffix("=y") == Some(option);
                Some(text.lines().any(set))
            }
            Self::Absent { .. } => None,
        }
    }

    /// Required: the scheduler's BPF object asks libbpf for some of its values.
    fn finding(&self, release: Option<&str>) -> Finding {
        let finding = |state, detail: &str| {
            Finding::new(Area::Kernel, "configuration", state, detail).required()
        };
        match self {
            Self::Found { place, .. } => finding(State::Ok, place),
            Self::Absent { why } => finding(State::Missing, why).fix(format!(
                "sudo modprobe configs, or put the kernel's .config at /boot/config-{}",
                release.unwrap_or("$(uname -r)")
            )),
        }
    }
}

/// `6.18.44-foo` → `(6, 18)`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A capability: its bit (include/uapi/linux/capability.h), and what we want it for.
struct Capability {
    name: &'static str,
    bit: u32,
    purpose: &'static str,
    required: bool,
}

const CAP_SYS_ADMIN: u32 = 21;

/// Loading a struct_ops program takes CAP_BPF and CAP_PERFMON (kernel/bpf/syscall.c, bpf_prog_load);
/// CAP_SYS_ADMIN stands for both.
const CAPABILITIES: [Capability; 5] = [
    Capability {
        name: "CAP_BPF",
        bit: 39,
        purpose: "load the scheduler",
        required: true,
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        purpose: "load the scheduler, read energy counters",
        required: true,
    },
    Capability {
        name: "CAP_SYS_ADMIN",
        bit: CAP_SYS_ADMIN,
        purpose: "read the kernel's Energy Model",
        required: false,
    },
    Capability {
        name: "CAP_SYS_NICE",
        bit: 23,
        purpose: "keep the control loop responsive",
        required: false,
    },
    Capability {
        name: "CAP_DAC_OVERRIDE",
        bit: 1,
        purpose: "read powercap, write clock preferences",
        required: false,
    },
];

/// What this process may do.
pub(super) fn privileges(sys: &SysRoot) -> Vec<Finding> {
    let finding = |name, state, detail: String| Finding::new(Area::Privileges, name, state, detail);
    let effective = match effective_capabilities(sys) {
        Ok(effective) => effective,
        Err(why) => return vec![finding("capabilities", State::Missing, why).required()],
    };
    let holds = |bit: u32| effective >> bit & 1 == 1;
    let mut findings: Vec<Finding> = Vec::new();
    for capability in &CAPABILITIES {
        let implied = capability.required && holds(CAP_SYS_ADMIN);
        let state = match (holds(capability.bit) || implied, capability.required) {
            (true, _) => State::Ok,
            (false, true) => State::Missing,
            (false, false) => State::Degraded,
        };
        let detail = match state {
            State::Ok => format!("to {}", capability.purpose),
            _ => format!("not held; needed to {}", capability.purpose),
        };
        let found = Finding {
            required: capability.required,
            ..finding(capability.name, state, detail)
        };
        findings.push(match state {
            State::Ok => found,
            _ => found.fix("run as root (sudo)"),
        });
    }
    let perfmon = holds(38) || holds(CAP_SYS_ADMIN);
    match sys.value::<i64>("proc/sys/kernel/perf_event_paranoid", "a whole number") {
        Ok(Some(level)) if perfmon => {
            let detail = format!("{level}, which does not bind this process");
            findings.push(finding("perf_event_paranoid", State::Ok, detail));
        }
        Ok(Some(level)) if level <= 0 => {
            findings.push(finding("perf_event_paranoid", State::Ok, level.to_string()));
        }
        Ok(Some(level)) => {
            let detail = format!("{level}: energy counters are closed to this process");
            findings.push(
                finding("perf_event_paranoid", State::Degraded, detail)
                    .fix("sudo sysctl kernel.perf_event_paranoid=0"),
            );
        }
        Ok(None) => {
            let detail = "this kernel has no perf events".to_owned();
            findings.push(
                finding("perf_event_paranoid", State::Degraded, detail)
                    .fix("boot a kernel with CONFIG_PERF_EVENTS=y"),
            );
        }
        Err(error) => {
            findings.push(finding(
                "perf_event_paranoid",
                State::Degraded,
                error.to_string(),
            ));
        }
    }
    findings
}

/// The mask of `CapEff` in /proc/self/status.
fn effective_capabilities(sys: &SysRoot) -> Result<u64, String> {
    const FILE: &str = "proc/self/status";
    let status = match sys.text(FILE) {
        Ok(Some(status)) => status,
        Ok(None) => return Err(format!("no /{FILE}: is /proc mounted?")),
        Err(error) => return Err(error.to_string()),
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask
        .ok_or_else(|| format!("/{FILE} has no line CapEff"))?
        .trim();
    u64::from_str_radix(mask, 16)
        .map_err(|_| format!("/{FILE}: '{mask}' is not a hexadecimal mask"))
}
