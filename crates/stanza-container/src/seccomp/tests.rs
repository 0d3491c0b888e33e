//! The compiler against a plain reading of the rules: every system call of every architecture, with arguments on and
//! around each value that a rule tests.

use std::collections::BTreeMap;

use stanza_spec::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use super::compile::{CompileError, compile_for};
use super::default::default_profile_for;
use super::docker::{ProfileError, parse};
use super::filter::Filter;
use super::numbers::{self, Abi, X32_BIT};

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
struct Call {
    arch: u32,
    number: u32,
    args: [u64; 6],
}

/// A program as the kernel reads it.
struct Decoded(Vec<(u16, usize, usize, u32)>);

impl Decoded {
    fn of(filter: &Filter) -> Decoded {
        let read = |c: &[u8]| {
            let constant = u32::from_ne_bytes(c[4..8].try_into().unwrap());
            (u16::from_ne_bytes([c[0], c[1]]), c[2].into(), c[3].into(), constant)
        };
        Decoded(filter.program().chunks_exact(8).map(read).collect())
    }

    /// Runs the program as the kernel does; panics on what the kernel's checker would refuse.
    fn run(&self, call: Call) -> u32 {
        let mut data = [0_u32; 16];
        data[0] = call.number;
        data[1] = call.arch;
        for (index, arg) in call.args.iter().enumerate() {
            data[4 + 2 * index] = u32::try_from(arg & 0xffff_ffff).unwrap();
            data[5 + 2 * index] = u32::try_from(arg >> 32).unwrap();
        }
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let (code, yes, no, k) = self.0[at];
            at += 1;
            let mut branch = |holds: bool| at += if holds { yes } else { no };
            match code {
                0x20 => {
                    assert_eq!(k % 4, 0);
                    a = data[usize::try_from(k / 4).unwrap()];
                }
                0x54 => a &= k,
                0x05 => at += usize::try_from(k).unwrap(),
                0x15 => branch(a == k),
                0x25 => branch(a > k),
                0x35 => branch(a >= k),
                0x06 => return k,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }
}

fn run(filter: &Filter, call: Call) -> u32 {
    Decoded::of(filter).run(call)
}

/// The rules of a profile for one architecture, by number and in their order.
struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    abi: Abi,
    rules: BTreeMap<u32, Vec<&'a LinuxSyscall>>,
    highest: u32,
}

impl<'a> Reading<'a> {
    fn new(profile: &'a LinuxSeccomp, abi: Abi) -> Reading<'a> {
        let mut reading = Reading { profile, abi, rules: BTreeMap::new(), highest: 0 };
        for rule in profile.syscalls().iter().flatten() {
            for name in rule.names() {
                let Some(number) = numbers::find(name).and_then(|row| row.on(abi)) else { continue };
                reading.rules.entry(number).or_default().push(rule);
                if number & 0xf_0000 == 0 {
                    reading.highest = reading.highest.max(number);
                }
            }
        }
        reading
    }

    /// The documented meaning of the profile, read literally for one call.
    fn evaluate(&self, call: Call) -> u32 {
        let errno = self.profile.default_action() == LinuxSeccompAction::ScmpActErrno;
        let named = self.highest != 0;
        let default = match self.profile.default_action().as_u32(self.profile.default_errno_ret()) {
            _ if errno && named && call.number > self.highest => ENOSYS,
            default => default,
        };
        let plain = self.profile.default_action().as_u32(self.profile.default_errno_ret());
        let mut matched = None;
        for rule in self.rules.get(&call.number).into_iter().flatten() {
            let action = rule.action().as_u32(rule.errno_ret());
            let args = rule.args().as_deref().unwrap_or_default();
            let twice = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
            let mut tests = args.iter().map(|arg| holds(arg, call.args[arg.index()], self.abi));
            if action == plain {
                continue;
            }
            if args.is_empty() {
                return action;
            }
            if if twice { tests.any(|test| test) } else { tests.all(|test| test) } {
                matched = matched.or(Some(action));
            }
        }
        // A call that only rules with arguments name is known, so it gets the plain default.
        matched.unwrap_or(default)
    }
}

fn listed(profile: &LinuxSeccomp, arch: Arch) -> bool {
    profile.architectures().iter().flatten().any(|other| *other == arch)
}

/// The architecture that a call comes through; `None` when it is shut.
fn abi_of(profile: &LinuxSeccomp, native: &str, call: Call) -> Option<Abi> {
    let (abi, open) = match (native, call.arch) {
        ("x86_64", X86_64) if call.number & X32_BIT != 0 && call.number != u32::MAX => {
            (Abi::X32, listed(profile, Arch::ScmpArchX32))
        }
        // The number -1 falls into whichever table is the last.
        ("x86_64", X86_64) if call.number == u32::MAX && listed(profile, Arch::ScmpArchX32) => {
            (Abi::X32, true)
        }
        ("x86_64", X86_64) => (Abi::X86_64, true),
        ("x86_64", X86) => (Abi::X86, listed(profile, Arch::ScmpArchX86)),
        ("aarch64", AARCH64) => (Abi::Aarch64, true),
        ("aarch64", ARM) => (Abi::Arm, listed(profile, Arch::ScmpArchArm)),
        _ => return None,
    };
    open.then_some(abi)
}

fn holds(arg: &LinuxSeccompArg, actual: u64, abi: Abi) -> bool {
    use LinuxSeccompOperator as Op;
    let width = if matches!(abi, Abi::X86_64 | Abi::Aarch64) { u64::MAX } else { 0xffff_ffff };
    let (actual, value, second) = (actual & width, arg.value() & width, arg.value_two().unwrap_or(0) & width);
    match arg.op() {
        Op::ScmpCmpNe => actual != value,
        Op::ScmpCmpLt => actual < value,
        Op::ScmpCmpLe => actual <= value,
        Op::ScmpCmpEq => actual == value,
        Op::ScmpCmpGe => actual >= value,
        Op::ScmpCmpGt => actual > value,
        Op::ScmpCmpMaskedEq => actual & value == second,
    }
}

/// A small generator with a fixed seed (xorshift64*), so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn value(&mut self) -> u64 {
        let base = self.one_of(&[0, 1, 16, 0x7e02_0000, 0xffff_ffff, 1 << 32, (1 << 40) + 5, u64::MAX]);
        let near = self.one_of(&[0, 1, u64::MAX]);
        base.wrapping_add(near)
    }
}

/// Compares the program with the plain reading at every number and around every tested value.
fn assert_agrees(profile: &LinuxSeccomp, native: &str, random: &mut Random) {
    let filter = Decoded::of(&compile_for(profile, native).unwrap());
    let readings =
        [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm].map(|abi| Reading::new(profile, abi));
    let mut values: Vec<u64> = vec![0, 1, u64::MAX];
    for arg in profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()) {
        for value in [arg.value(), arg.value_two().unwrap_or(0)] {
            values.extend([value, value.wrapping_sub(1), value.wrapping_add(1), value ^ (1 << 32)]);
        }
    }
    values.sort_unstable();
    values.dedup();
    let plain = (0..600).chain([1023, 0x3fff_ffff, 0x7fff_ffff, u32::MAX - 1, u32::MAX]);
    let all = plain.chain((0..600).map(|n| n | X32_BIT)).chain((0..8).map(|n| 0xf_0000 + n));
    for number in all {
        for arch in [X86_64, X86, AARCH64, ARM, 0] {
            for round in 0..12 {
                let mut args = [0; 6];
                args.fill_with(|| if round == 0 { 0 } else { random.one_of(&values) });
                let call = Call { arch, number, args };
                let expected = match abi_of(profile, native, call) {
                    Some(abi) => readings[abi as usize].evaluate(call),
                    None => KILL_PROCESS,
                };
                assert_eq!(filter.run(call), expected, "{native} {call:x?}");
            }
        }
    }
}

fn random_profile(random: &mut Random) -> LinuxSeccomp {
    use LinuxSeccompAction as Action;
    // Names that reach x86's multiplexers are tested on their own.
    let names: Vec<&str> = numbers::names()
        .filter(|name| !matches!(*name, "ipc" | "socketcall" | "write"))
        .filter(|name| !(name.starts_with("s") || name.starts_with("recv") || name.starts_with("m")))
        .filter(|name| !matches!(*name, "bind" | "connect" | "listen" | "accept" | "accept4"))
        .filter(|name| !name.starts_with("getsock") && !name.starts_with("getpeer"))
        .collect();
    let actions = [
        Action::ScmpActAllow,
        Action::ScmpActErrno,
        Action::ScmpActKillProcess,
        Action::ScmpActKillThread,
        Action::ScmpActTrap,
        Action::ScmpActTrace,
        Action::ScmpActLog,
        Action::ScmpActNotify,
    ];
    let operators = [
        LinuxSeccompOperator::ScmpCmpNe,
        LinuxSeccompOperator::ScmpCmpLt,
        LinuxSeccompOperator::ScmpCmpLe,
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpEq,
        LinuxSeccompOperator::ScmpCmpGe,
        LinuxSeccompOperator::ScmpCmpGt,
        LinuxSeccompOperator::ScmpCmpMaskedEq,
    ];
    let mut rules = Vec::new();
    for _ in 0..random.below(24) {
        let count = 1 + random.below(30);
        let chosen: Vec<&str> = (0..count).map(|_| random.one_of(&names)).collect();
        let args: Vec<serde_json::Value> = (0..random.below(4))
            .map(|_| {
                let two = random.value();
                serde_json::json!({ "index": random.below(6), "value": random.value(), "valueTwo": two,
                    "op": random.one_of(&operators) })
            })
            .collect();
        let errno = random.one_of(&[None, Some(38), Some(22), Some(1)]);
        rules
            .push(serde_json::json!({ "names": chosen, "action": random.one_of(&actions), "errnoRet": errno,
            "args": args }));
    }
    let arches = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_NATIVE"];
    let arches: Vec<&str> = arches.into_iter().filter(|_| random.below(2) == 0).collect();
    let default = random.one_of(&actions[..7]);
    let default_errno = random.one_of(&[None, Some(38), Some(13)]);
    serde_json::from_value(serde_json::json!({ "defaultAction": default, "defaultErrnoRet": default_errno,
        "architectures": arches, "syscalls": rules }))
    .unwrap()
}

#[test]
fn a_program_does_what_its_rules_say() {
    let mut random = Random(0x5742_4e5a_4131_0001);
    for round in 0..40 {
        let profile = random_profile(&mut random);
        assert_agrees(&profile, if round % 4 == 3 { "aarch64" } else { "x86_64" }, &mut random);
    }
}

#[test]
fn the_default_profile_compiles_to_what_it_says() {
    let mut random = Random(7);
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYSLOG"][..]] {
        for machine in ["x86_64", "aarch64"] {
            assert_agrees(&default_profile_for(capabilities, machine), machine, &mut random);
        }
    }
}

fn default_verdict(capabilities: &[&str], name: &str, args: [u64; 6]) -> u32 {
    let filter = compile_for(&default_profile_for(capabilities, "x86_64"), "x86_64").unwrap();
    let number = numbers::find(name).unwrap().on(Abi::X86_64).unwrap();
    run(&filter, Call { arch: X86_64, number, args })
}

#[test]
fn the_default_profile_opens_calls_by_capability() {
    let cases = [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "bpf"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_PACCT", "acct"),
        ("CAP_SYS_PTRACE", "pidfd_getfd"),
        ("CAP_SYS_RAWIO", "iopl"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_TTY_CONFIG", "vhangup"),
        ("CAP_SYS_NICE", "mbind"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ];
    for (capability, name) in cases {
        assert_eq!(default_verdict(&[], name, [0; 6]), EPERM, "{name}");
        assert_eq!(default_verdict(&["CAP_CHOWN", capability], name, [0; 6]), ALLOW, "{name}");
    }
    for never in ["keyctl", "add_key", "io_uring_setup", "userfaultfd", "kexec_load", "swapon", "pivot_root"]
    {
        assert_eq!(default_verdict(&["CAP_SYS_ADMIN"], never, [0; 6]), EPERM, "{never}");
    }
}

#[test]
fn the_default_profile_looks_at_arguments() {
    let with = |value: u64| [value, 0, 0, 0, 0, 0];
    let socket = |family| default_verdict(&[], "socket", with(family));
    assert_eq!([1, 2, 10, 16, 17, 29].map(socket), [ALLOW; 6]);
    assert_eq!([12, 38, 40, 46, 1 << 32].map(socket), [EPERM; 5]);
    let clone = |flags| default_verdict(&[], "clone", with(flags));
    // A thread; a process; each kind of namespace.
    assert_eq!([0x003d_0f00, 17].map(clone), [ALLOW; 2]);
    assert_eq!([0x0002_0000, 0x0200_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000].map(clone), [EPERM; 5]);
    assert_eq!(default_verdict(&["CAP_SYS_ADMIN"], "clone", with(0x1000_0000)), ALLOW);
    assert_eq!(default_verdict(&[], "clone3", [0; 6]), ENOSYS);
    assert_eq!(default_verdict(&["CAP_SYS_ADMIN"], "clone3", [0; 6]), ALLOW);
    let personality = |value| default_verdict(&[], "personality", with(value));
    assert_eq!([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(personality), [ALLOW; 5]);
    // ADDR_NO_RANDOMIZE.
    assert_eq!(personality(0x004_0000), EPERM);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let filter = compile_for(&default_profile_for(&[], "x86_64"), "x86_64").unwrap();
    let at = |arch, number| run(&filter, Call { arch, number, args: [0; 6] });
    assert_eq!(at(X86_64, 466), ALLOW);
    assert_eq!([467, 500, 0x3fff_ffff].map(|number| at(X86_64, number)), [ENOSYS; 3]);
    assert_eq!(at(X86, 467), ENOSYS);
    // x32 has old calls of its own up to 547.
    assert_eq!(at(X86_64, X32_BIT | 548), ENOSYS);
    assert_eq!(at(X86_64, X32_BIT), ALLOW);
    assert_eq!(at(AARCH64, 63), KILL_PROCESS);
}

fn profile(json: &str) -> LinuxSeccomp {
    parse(json, &[], "amd64", (6, 18)).unwrap().unwrap()
}

#[test]
fn x32_is_killed_unless_listed() {
    let filter = compile_for(&profile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), "x86_64").unwrap();
    let at = |arch, number| run(&filter, Call { arch, number, args: [0; 6] });
    assert_eq!(at(X86_64, 0), ALLOW);
    assert_eq!(at(X86_64, X32_BIT), KILL_PROCESS);
    assert_eq!(at(X86, 3), KILL_PROCESS);
    // A call that a tracer cancelled is not x32.
    assert_eq!(at(X86_64, u32::MAX), ALLOW);
    assert_eq!(filter.instructions(), 7);
}

#[test]
fn a_denied_socket_is_denied_through_socketcall() {
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["socket", "shmat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let filter = compile_for(&profile(rules), "x86_64").unwrap();
    let at = |number, first| run(&filter, Call { arch: X86, number, args: [first, 0, 0, 0, 0, 0] });
    assert_eq!([at(102, 1), at(102, 3), at(359, 9)], [EPERM, ALLOW, EPERM]);
    assert_eq!([at(117, 21), at(117, 0x1_0015), at(117, 22)], [EPERM, EPERM, ALLOW]);
}

#[test]
fn precedence_is_that_of_libseccomp() {
    let rules = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_KILL"},
        {"names": ["open"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["open"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 3, "op": "SCMP_CMP_GE"},
            {"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": ["not_a_call_at_all"], "action": "SCMP_ACT_KILL"}]}"#;
    let filter = compile_for(&profile(rules), "x86_64").unwrap();
    let at = |number, args| run(&filter, Call { arch: X86_64, number, args });
    assert_eq!(at(0, [1, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(at(2, [0, 0, 0, 0, 0, 0]), 0x7ffc_0000);
    assert_eq!(at(2, [0, 3, 0, 0, 0, 0]), 0x7ffc_0000);
    assert_eq!(at(2, [0, 2, 0, 0, 0, 0]), ENOSYS);
}

#[test]
fn flags_reach_the_filter() {
    let flags = |json: &str| compile_for(&profile(json), "x86_64").unwrap().flags();
    assert_eq!(flags(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), 1 << 2);
    assert_eq!(flags(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": []}"#), 0);
    let log = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#;
    assert_eq!(flags(log), 1 << 1);
    let notify = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#;
    assert_eq!(flags(notify), 1 | 1 << 3 | 1 << 4);
    assert!(compile_for(&profile(notify), "x86_64").unwrap().notifies());
}

#[test]
fn what_no_filter_can_do_is_refused_by_name() {
    let refused = |rules: &str| {
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{rules}]}}"#);
        compile_for(&profile(&json), "x86_64").unwrap_err()
    };
    let args = r#"{"names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#;
    assert_eq!(refused(args), CompileError::Argument { name: "kill".into(), index: 6 });
    let errno = r#"{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}"#;
    assert_eq!(refused(errno), CompileError::Errno { name: "kill".into(), errno: 4096 });
    let write = r#"{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}"#;
    assert_eq!(refused(write), CompileError::NotifyOnWrite);
    let default = profile(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#);
    assert_eq!(compile_for(&default, "x86_64"), Err(CompileError::NotifyByDefault));
    assert_eq!(compile_for(&default, "vax"), Err(CompileError::Architecture("vax".into())));
}

#[test]
fn a_profile_with_thousands_of_tests_is_refused_and_one_that_just_fits_is_right() {
    let rules = |count: u64| -> LinuxSeccomp {
        let rules: Vec<serde_json::Value> = (0..count)
            .map(|n| {
                serde_json::json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 1, "value": n << 33, "op": "SCMP_CMP_EQ" },
                { "index": 2, "value": n, "op": "SCMP_CMP_EQ" }] })
            })
            .collect();
        serde_json::from_value(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }))
            .unwrap()
    };
    let filter = compile_for(&rules(480), "x86_64").unwrap();
    let at = |n: u64, m: u64| run(&filter, Call { arch: X86_64, number: 16, args: [0, n << 33, m, 0, 0, 0] });
    for n in 0..480 {
        assert_eq!([at(n, n), at(n, n + 1)], [ALLOW, EPERM]);
    }
    assert!(matches!(compile_for(&rules(600), "x86_64"), Err(CompileError::TooLong(n)) if n > 4096));
}

#[test]
fn dockers_conditions_are_resolved() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
      "syscalls": [
        {"name": "old", "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x"},
        {"names": ["cap"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}},
        {"names": ["nocap"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_BPF", "CAP_SYS_ADMIN"]}},
        {"names": ["arch"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["noarch"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "7.0"}},
        {"names": ["past"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}}]}"#;
    let names = |capabilities: &[&str], arch: &str| -> Vec<String> {
        let profile = parse(json, capabilities, arch, (6, 18)).unwrap().unwrap();
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    };
    assert_eq!(names(&[], "x86_64"), ["old", "nocap", "arch", "new"]);
    assert_eq!(names(&["CAP_BPF", "CAP_SYSLOG"], "amd64"), ["old", "cap", "arch", "new"]);
    assert_eq!(names(&["CAP_SYSLOG"], "arm64"), ["old", "nocap", "noarch", "new"]);
    let arches = |arch| parse(json, &[], arch, (6, 18)).unwrap().unwrap().architectures().clone().unwrap();
    assert_eq!(arches("amd64"), [Arch::ScmpArchX86_64, Arch::ScmpArchX86]);
    assert_eq!(arches("arm64"), []);
}

#[test]
fn bad_profiles_are_refused_with_the_word_that_is_wrong() {
    let refused = |json: &str| parse(json, &[], "amd64", (6, 18)).unwrap_err();
    let source = |error: ProfileError| std::error::Error::source(&error).unwrap().to_string();
    assert!(source(refused(r#"{"defaultAction": "SCMP_ACT_SING"}"#)).contains("`SCMP_ACT_SING`"));
    let operator = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG",
        "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_ABOUT"}]}]}"#;
    assert!(source(refused(operator)).contains("`SCMP_CMP_ABOUT`"));
    let both = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"],
        "archMap": [{"architecture": "SCMP_ARCH_ARM"}]}"#;
    assert!(matches!(refused(both), ProfileError::TwoArchitectures));
    let kernel = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG",
        "includes": {"minKernel": "new"}}]}"#;
    assert!(matches!(refused(kernel), ProfileError::KernelVersion(text) if text == "new"));
    assert!(parse("{}", &[], "amd64", (6, 18)).unwrap().is_none());
}

#[test]
fn a_cached_filter_comes_back_and_a_foreign_one_does_not() {
    let filter = compile_for(&default_profile_for(&[], "x86_64"), "x86_64").unwrap();
    let bytes = filter.to_bytes();
    assert_eq!(Filter::from_bytes(&bytes), Ok(filter));
    assert!(Filter::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(Filter::from_bytes(&bytes[1..]).is_err());
    assert!(Filter::from_bytes(b"").is_err());
}
