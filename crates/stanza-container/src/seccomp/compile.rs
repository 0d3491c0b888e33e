//! OCI rules -> a program.
//!
//! Names become numbers, rules of one number become a [`Verdict`], neighbouring numbers with the same action become
//! one range, and the ranges of an architecture become a binary search.

use stanza_spec::oci::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use stanza_spec::{Classify, ErrorKind};

use super::emit::{AT_LEAST, EQUAL, GREATER, Label, Program, offset};
use super::filter::{Filter, MAX_INSTRUCTIONS};
use super::numbers::{self, Abi, Numbers, X32_BIT};

const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;
/// The largest error number that the kernel passes on.
const MAX_ERRNO: u32 = 4095;
/// `SECCOMP_FILTER_FLAG_TSYNC_ESRCH`: without it `TSYNC` cannot be had together with a listener.
const FLAG_TSYNC_ESRCH: u32 = 1 << 4;
const FLAG_TSYNC: u32 = 1;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// An error number that a system call cannot return.
    #[error("seccomp rule for `{name}` returns error number `{errno}`: at most `4095` is possible")]
    Errno {
        /// The first call of the rule, or `default`.
        name: String,
        /// The number asked for.
        errno: u32,
    },
    /// A system call has six arguments.
    #[error("seccomp rule for `{name}` tests argument `{index}`: calls have arguments `0` to `5`")]
    Argument {
        /// The first call of the rule.
        name: String,
        /// The index asked for.
        index: usize,
    },
    /// Notification for everything would also stop the hand-over of the notify descriptor.
    #[error("`SCMP_ACT_NOTIFY` cannot be the default action of a seccomp profile")]
    NotifyByDefault,
    /// The hand-over of the notify descriptor itself needs `write`.
    #[error("`SCMP_ACT_NOTIFY` cannot be the action for `write`")]
    NotifyOnWrite,
    /// The kernel takes 4096 instructions.
    #[error("the seccomp profile makes a filter of `{0}` instructions: at most `4096` are possible")]
    TooLong(usize),
    /// No table of numbers for this machine.
    #[error("seccomp filters cannot be made for the architecture `{0}`")]
    Architecture(String),
}

impl Classify for CompileError {
    fn kind(&self) -> ErrorKind {
        match self {
            CompileError::Architecture(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            CompileError::Architecture(_) => {
                Some("run without a filter by `--security-opt seccomp=unconfined`".into())
            }
            CompileError::TooLong(_) => Some("test fewer arguments in the profile".into()),
            _ => None,
        }
    }
}

/// Compiles `profile` for this machine. The module's header says how rules are read.
///
/// # Errors
/// [`CompileError`] names the rule that no filter can express.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, CompileError> {
    compile_for(profile, std::env::consts::ARCH)
}

/// Compiles `profile` for the machine that Rust calls `machine`.
pub(super) fn compile_for(profile: &LinuxSeccomp, machine: &str) -> Result<Filter, CompileError> {
    let machine = Machine::of(profile, machine)?;
    let default = action_value(profile.default_action(), profile.default_errno_ret(), "default")?;
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(CompileError::NotifyByDefault);
    }
    let no_such_call = match profile.default_action() {
        LinuxSeccompAction::ScmpActErrno => Some(ERRNO | ENOSYS),
        _ => None,
    };
    let rules = read_rules(profile, default)?;

    let mut program = Program::new();
    let mut entry = program.return_action(KILL_PROCESS);
    for (audit, abis) in &machine.tables {
        let ranges = ranges_of(abis, &rules, default, no_such_call);
        let tree = emit_ranges(&mut program, &ranges, default, &mut Vec::new());
        let number = program.load(offset::NUMBER, tree);
        entry = program.branch(EQUAL, *audit, number, entry);
    }
    program.load(offset::ARCHITECTURE, entry);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(program.len()));
    }
    Ok(Filter::new(program.finish(), flags_of(profile)))
}

/// Which tables a machine's program has.
struct Machine {
    /// `AUDIT_ARCH_*` and the tables that share it. The machine's own architecture is the last: written last, it is
    /// tested first.
    tables: Vec<(u32, Vec<Abi>)>,
}

impl Machine {
    fn of(profile: &LinuxSeccomp, machine: &str) -> Result<Machine, CompileError> {
        const X86_64: u32 = 0xc000_003e;
        const X86: u32 = 0x4000_0003;
        const AARCH64: u32 = 0xc000_00b7;
        const ARM: u32 = 0x4000_0028;
        let listed = |arch: Arch| profile.architectures().iter().flatten().any(|other| *other == arch);
        let mut tables = Vec::new();
        match machine {
            "x86_64" => {
                if listed(Arch::ScmpArchX86) {
                    tables.push((X86, vec![Abi::X86]));
                }
                let x32 = listed(Arch::ScmpArchX32).then_some(Abi::X32);
                tables.push((X86_64, [Abi::X86_64].into_iter().chain(x32).collect()));
            }
            "aarch64" => {
                if listed(Arch::ScmpArchArm) {
                    tables.push((ARM, vec![Abi::Arm]));
                }
                tables.push((AARCH64, vec![Abi::Aarch64]));
            }
            "x86" => tables.push((X86, vec![Abi::X86])),
            "arm" => tables.push((ARM, vec![Abi::Arm])),
            other => return Err(CompileError::Architecture(other.to_owned())),
        }
        Ok(Machine { tables })
    }
}

/// The value that a filter returns for an action.
fn action_value(action: LinuxSeccompAction, errno: Option<u32>, name: &str) -> Result<u32, CompileError> {
    match (action, errno) {
        (LinuxSeccompAction::ScmpActErrno, Some(errno)) if errno > MAX_ERRNO => {
            Err(CompileError::Errno { name: name.to_owned(), errno })
        }
        (LinuxSeccompAction::ScmpActTrace, Some(errno)) if errno > 0xffff => {
            Err(CompileError::Errno { name: name.to_owned(), errno })
        }
        _ => Ok(action.as_u32(errno)),
    }
}

fn flags_of(profile: &LinuxSeccomp) -> u32 {
    let mut flags = match profile.flags() {
        // Before Linux 5.16 a filter also turned on the mitigation of speculative store bypass, at a cost; runc
        // asks for it only when the profile speaks of flags.
        None => FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |bits, flag| {
            bits | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => FLAG_TSYNC,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 1 << 5,
            }
        }),
    };
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if profile.syscalls().iter().flatten().any(|rule| notifies(rule.action())) {
        flags |= FLAG_NEW_LISTENER;
        if flags & FLAG_TSYNC != 0 {
            flags |= FLAG_TSYNC_ESRCH;
        }
    }
    flags
}

/// One comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    index: u8,
    operator: LinuxSeccompOperator,
    value: u64,
    second: u64,
}

/// One OCI rule, read.
struct Rule<'a> {
    names: &'a [String],
    /// The numbers of those names that some architecture has.
    rows: Vec<Numbers>,
    action: u32,
    /// The action is the default one: the rule only tells which calls its author knew.
    silent: bool,
    /// Any of these; each holds when all its tests hold. Empty: the rule has no condition.
    alternatives: Vec<Vec<Test>>,
}

fn read_rules(profile: &LinuxSeccomp, default: u32) -> Result<Vec<Rule<'_>>, CompileError> {
    let mut rules = Vec::new();
    for rule in profile.syscalls().iter().flatten() {
        let first = rule.names().first().map_or("", String::as_str);
        let action = action_value(rule.action(), rule.errno_ret(), first)?;
        if rule.action() == LinuxSeccompAction::ScmpActNotify
            && rule.names().iter().any(|name| name == "write")
        {
            return Err(CompileError::NotifyOnWrite);
        }
        let tests = rule
            .args()
            .iter()
            .flatten()
            .map(|argument| read_test(argument, first))
            .collect::<Result<Vec<Test>, CompileError>>()?;
        let twice =
            tests.iter().enumerate().any(|(at, test)| tests[..at].iter().any(|t| t.index == test.index));
        let alternatives = match tests {
            tests if tests.is_empty() => Vec::new(),
            tests if twice => tests.into_iter().map(|test| vec![test]).collect(),
            tests => vec![tests],
        };
        let rows = rule.names().iter().filter_map(|name| numbers::find(name)).collect();
        rules.push(Rule { names: rule.names(), rows, action, silent: action == default, alternatives });
    }
    Ok(rules)
}

fn read_test(argument: &LinuxSeccompArg, name: &str) -> Result<Test, CompileError> {
    let index = u8::try_from(argument.index()).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| CompileError::Argument { name: name.to_owned(), index: argument.index() })?;
    let second = argument.value_two().unwrap_or(0);
    Ok(Test { index, operator: argument.op(), value: argument.value(), second })
}

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// The same whatever its arguments.
    Always(u32),
    /// The action of the first alternative whose tests all hold, else the default action.
    Depends { wide: bool, alternatives: Vec<(Vec<Test>, u32)> },
}

/// A verdict for the numbers from `start` up to the next range.
#[derive(Clone, Debug)]
struct Range {
    start: u32,
    verdict: Verdict,
}

/// All ranges of the tables that share one audit architecture, from 0 up.
fn ranges_of(abis: &[Abi], rules: &[Rule<'_>], default: u32, no_such_call: Option<u32>) -> Vec<Range> {
    let mut ranges = Vec::with_capacity(256);
    for abi in abis {
        let base = if *abi == Abi::X32 { X32_BIT } else { 0 };
        // A number beyond this is not known to the author of the profile.
        let highest = no_such_call.and_then(|_| highest_number(*abi, rules)).unwrap_or(u32::MAX - 1);
        let unnamed = |number: u32| match no_such_call {
            Some(action) if number > highest => Verdict::Always(action),
            _ => Verdict::Always(default),
        };
        push_range(&mut ranges, base, unnamed(base));
        for (number, verdict) in verdicts(*abi, rules) {
            if number > highest {
                push_range(&mut ranges, highest + 1, unnamed(highest + 1));
            }
            push_range(&mut ranges, number, verdict);
            push_range(&mut ranges, number + 1, unnamed(number + 1));
        }
        if ranges.last().is_some_and(|last| last.start <= highest) && highest < u32::MAX - 1 {
            push_range(&mut ranges, highest + 1, unnamed(highest + 1));
        }
    }
    if abis == [Abi::X86_64] {
        push_range(&mut ranges, X32_BIT, Verdict::Always(KILL_PROCESS));
        // Not x32 but the number -1: a call that a tracer has cancelled.
        push_range(&mut ranges, u32::MAX, Verdict::Always(no_such_call.unwrap_or(default)));
    }
    ranges.dedup_by(|later, earlier| later.verdict == earlier.verdict);
    ranges
}

/// Appends a range; one that starts where the last does replaces it.
fn push_range(ranges: &mut Vec<Range>, start: u32, verdict: Verdict) {
    match ranges.last_mut() {
        Some(last) if last.start == start => last.verdict = verdict,
        _ => ranges.push(Range { start, verdict }),
    }
}

/// The highest number that the profile names, whatever its rule says; ARM's private calls, far above, apart.
fn highest_number(abi: Abi, rules: &[Rule<'_>]) -> Option<u32> {
    let rows = rules.iter().flat_map(|rule| &rule.rows);
    rows.filter_map(|row| row.on(abi)).filter(|number| number & !X32_BIT < 0x1_0000).max()
}

/// The verdict of every call that a rule names, by rising number.
fn verdicts(abi: Abi, rules: &[Rule<'_>]) -> Vec<(u32, Verdict)> {
    // (number, rule, operation of a multiplexer or 0); rules stay in their order.
    let mut uses: Vec<(u32, usize, u64)> = Vec::with_capacity(512);
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.silent) {
        uses.extend(rule.rows.iter().filter_map(|row| Some((row.on(abi)?, at, 0))));
        if abi == Abi::X86 && rule.alternatives.is_empty() {
            for name in rule.names {
                if let Some((multiplexer, operation)) = multiplexed(name) {
                    uses.push((multiplexer, at, operation));
                }
            }
        }
    }
    uses.sort_unstable();
    uses.chunk_by(|one, two| one.0 == two.0)
        .map(|uses| {
            let always = uses
                .iter()
                .find(|(_, rule, operation)| *operation == 0 && rules[*rule].alternatives.is_empty());
            let verdict = match always {
                Some((_, rule, _)) => Verdict::Always(rules[*rule].action),
                None => Verdict::Depends {
                    wide: matches!(abi, Abi::X86_64 | Abi::Aarch64),
                    alternatives: uses.iter().flat_map(|used| alternatives_of(used, rules)).collect(),
                },
            };
            (uses[0].0, verdict)
        })
        .collect()
}

fn alternatives_of(used: &(u32, usize, u64), rules: &[Rule<'_>]) -> Vec<(Vec<Test>, u32)> {
    let rule = &rules[used.1];
    if used.2 != 0 {
        // `ipc` keeps a version in the high half of its operation.
        let operator = LinuxSeccompOperator::ScmpCmpMaskedEq;
        return vec![(vec![Test { index: 0, operator, value: 0xffff, second: used.2 }], rule.action)];
    }
    rule.alternatives.iter().map(|tests| (tests.clone(), rule.action)).collect()
}

/// The number of x86's `socketcall` or `ipc`, and the operation that stands for `name` there (`linux/net.h`,
/// `linux/ipc.h`).
fn multiplexed(name: &str) -> Option<(u32, u64)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    })
}

/// The binary search over `ranges`, which are never empty. Calls with the same tests share them (`written`).
fn emit_ranges<'a>(
    program: &mut Program,
    ranges: &'a [Range],
    default: u32,
    written: &mut Vec<(&'a Verdict, Label)>,
) -> Label {
    if let [range] = ranges {
        return match &range.verdict {
            Verdict::Always(action) => program.return_action(*action),
            Verdict::Depends { wide, alternatives } => {
                if let Some((_, label)) = written.iter().find(|(verdict, _)| **verdict == range.verdict) {
                    return *label;
                }
                let label = emit_alternatives(program, *wide, alternatives, default);
                written.push((&range.verdict, label));
                label
            }
        };
    }
    let middle = ranges.len() / 2;
    let high = emit_ranges(program, &ranges[middle..], default, written);
    let low = emit_ranges(program, &ranges[..middle], default, written);
    program.branch(AT_LEAST, ranges[middle].start, high, low)
}

fn emit_alternatives(
    program: &mut Program,
    wide: bool,
    alternatives: &[(Vec<Test>, u32)],
    default: u32,
) -> Label {
    let mut entry = program.return_action(default);
    // Written backwards, so the last alternative first; runs of `argument == constant` share their loads.
    let groups: Vec<&[(Vec<Test>, u32)]> = alternatives.chunk_by(share_loads).collect();
    for group in groups.into_iter().rev() {
        let action = group[0].1;
        let matched = program.return_action(action);
        entry = match group {
            [(tests, _)] => {
                tests.iter().rev().fold(matched, |yes, test| emit_test(program, wide, *test, yes, entry))
            }
            _ => emit_set(program, wide, group, matched, entry),
        };
    }
    entry
}

/// Whether two neighbours are both `argument == constant`, of the same argument, high half and action.
fn share_loads(one: &(Vec<Test>, u32), two: &(Vec<Test>, u32)) -> bool {
    match (one.0.as_slice(), two.0.as_slice()) {
        ([a], [b]) => {
            let equal = LinuxSeccompOperator::ScmpCmpEq;
            a.operator == equal
                && b.operator == equal
                && a.index == b.index
                && a.value >> 32 == b.value >> 32
                && one.1 == two.1
        }
        _ => false,
    }
}

/// `argument in {constants}` with one load of each half.
fn emit_set(program: &mut Program, wide: bool, group: &[(Vec<Test>, u32)], yes: Label, no: Label) -> Label {
    let (high, low) = offset::argument(group[0].0[0].index);
    let mut entry = no;
    for (tests, _) in group.iter().rev() {
        entry = program.branch(EQUAL, halves(tests[0].value).1, yes, entry);
    }
    entry = program.load(low, entry);
    if wide {
        entry = program.branch(EQUAL, halves(group[0].0[0].value).0, entry, no);
        entry = program.load(high, entry);
    }
    entry
}

/// (high, low) 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits");
    (half(value >> 32), half(value))
}

/// One comparison of 64 bits, by halves; of the low half alone when not `wide`.
fn emit_test(program: &mut Program, wide: bool, test: Test, yes: Label, no: Label) -> Label {
    use LinuxSeccompOperator as Op;
    let (high_offset, low_offset) = offset::argument(test.index);
    let (high, low) = halves(test.value);
    let (yes, no) = match test.operator {
        Op::ScmpCmpNe | Op::ScmpCmpLt | Op::ScmpCmpLe => (no, yes),
        _ => (yes, no),
    };
    match test.operator {
        Op::ScmpCmpEq | Op::ScmpCmpNe => {
            let entry = program.branch(EQUAL, low, yes, no);
            let entry = program.load(low_offset, entry);
            if !wide {
                return entry;
            }
            let entry = program.branch(EQUAL, high, entry, no);
            program.load(high_offset, entry)
        }
        Op::ScmpCmpMaskedEq => {
            let (second_high, second_low) = halves(test.second);
            let entry = program.branch(EQUAL, second_low, yes, no);
            let entry = program.and(low, entry);
            let entry = program.load(low_offset, entry);
            // A mask without high bits never looks at them.
            if !wide || (high == 0 && second_high == 0) {
                return entry;
            }
            let entry = program.branch(EQUAL, second_high, entry, no);
            let entry = program.and(high, entry);
            program.load(high_offset, entry)
        }
        // Greater, or (negated) less or equal; at least, or (negated) less.
        Op::ScmpCmpGt | Op::ScmpCmpLe | Op::ScmpCmpGe | Op::ScmpCmpLt => {
            let strict = matches!(test.operator, Op::ScmpCmpGt | Op::ScmpCmpLe);
            let entry = program.branch(if strict { GREATER } else { AT_LEAST }, low, yes, no);
            let entry = program.load(low_offset, entry);
            if !wide {
                return entry;
            }
            let entry = program.branch(EQUAL, high, entry, no);
            let entry = program.branch(GREATER, high, yes, entry);
            program.load(high_offset, entry)
        }
    }
}
