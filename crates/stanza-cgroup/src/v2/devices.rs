//! Device rules as a BPF program, written by hand.
//!
//! The kernel runs it for each `mknod` and each opening of a device node, with the kind, the numbers and the wanted access,
//! and takes 0 for "no" (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15). The program goes through the rules from the last to
//! the first and crosses out of the wanted access what a rule allows; when nothing is left the answer is yes, when a
//! rule shuts something still wanted it is no. So an access can be put together from several rules, as on version 1.

use std::io;
use std::os::fd::BorrowedFd;

use stanza_sys::bpf::{self, DeviceProgram};

use crate::device::{Access, DeviceKind, DeviceRule};

// Registers by their use: 0 is the answer, 1 the context, 6 scratch.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// `BPF_DEVCG_*` of linux/bpf.h.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// `struct bpf_insn`: code, destination and source in one byte, offset, constant.
fn instruction(code: u8, destination: u8, source: u8, offset: u16, constant: i32) -> u64 {
    let registers =
        if cfg!(target_endian = "little") { destination | source << 4 } else { destination << 4 | source };
    let [o0, o1] = offset.to_ne_bytes();
    let [c0, c1, c2, c3] = constant.to_ne_bytes();
    u64::from_ne_bytes([code, registers, o0, o1, c0, c1, c2, c3])
}

/// `register = *(u32 *)(context + offset)`.
fn load(register: u8, offset: u16) -> u64 {
    instruction(0x61, register, CONTEXT, offset, 0)
}

/// `register &= constant`.
fn and(register: u8, constant: i32) -> u64 {
    instruction(0x57, register, 0, 0, constant)
}

/// `register >>= count`, without sign.
fn shift(register: u8, count: i32) -> u64 {
    instruction(0x77, register, 0, 0, count)
}

/// `destination = source`.
fn copy(destination: u8, source: u8) -> u64 {
    instruction(0xbf, destination, source, 0, 0)
}

/// `if register != constant skip`.
fn unless(register: u8, constant: i32, skip: u16) -> u64 {
    instruction(0x55, register, 0, skip, constant)
}

/// `if register == constant skip`.
fn when(register: u8, constant: i32, skip: u16) -> u64 {
    instruction(0x15, register, 0, skip, constant)
}

/// `return answer`.
fn answer(yes: bool) -> [u64; 2] {
    [instruction(0xb7, ANSWER, 0, 0, i32::from(yes)), instruction(0x95, 0, 0, 0, 0)]
}

/// The program of normal rules: at most 8 instructions per rule and 7 round them.
pub(crate) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    // `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`; the access is in the high half.
    let mut code = vec![
        load(KIND, 0),
        copy(WANTED, KIND),
        and(KIND, 0xffff),
        shift(WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let action = action(rule);
        let length = u16::try_from(action.len()).expect("a handful of instructions");
        let tests = tests(rule);
        let mut left = u16::try_from(tests.len()).expect("three tests at most") + length;
        for (register, constant) in tests {
            left -= 1;
            code.push(unless(register, constant, left));
        }
        code.extend(action);
        if rule.kind == DeviceKind::All && rule.access == Access::ALL {
            // It has answered; the verifier refuses code that nothing reaches.
            return code;
        }
    }
    code.extend(answer(false));
    code
}

/// What must be equal for a rule to be about a node. A number beyond 31 bits is compared as the kernel reads it, with its
/// sign extended, and so is about no node; real ones have 20 bits at most.
fn tests(rule: &DeviceRule) -> Vec<(u8, i32)> {
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some((KIND, BLOCK)),
        DeviceKind::Character => Some((KIND, CHARACTER)),
    };
    let number = |register, number: Option<u32>| number.map(|number| (register, number.cast_signed()));
    kind.into_iter().chain(number(MAJOR, rule.major)).chain(number(MINOR, rule.minor)).collect()
}

fn action(rule: &DeviceRule) -> Vec<u64> {
    let bits = bits(rule.access);
    let mut code = Vec::with_capacity(5);
    match (rule.allow, rule.access == Access::ALL) {
        (_, true) => {}
        (true, false) => code.extend([and(WANTED, !bits), unless(WANTED, 0, 2)]),
        (false, false) => code.extend([copy(SCRATCH, WANTED), and(SCRATCH, bits), when(SCRATCH, 0, 2)]),
    }
    code.extend(answer(rule.allow));
    code
}

fn bits(access: Access) -> i32 {
    let bit = |on: bool, bit: i32| if on { bit } else { 0 };
    bit(access.make, MAKE) | bit(access.read, READ) | bit(access.write, WRITE)
}

/// Puts the program of `rules` on a cgroup. What was on it before goes in the same step (one program) or after (more), so
/// that at no moment more is open than either allows.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, rules: &[DeviceRule], fresh: bool) -> io::Result<()> {
    let program = bpf::load_device_program(&program(rules))?;
    let old = if fresh { Vec::new() } else { bpf::query_device_programs(cgroup)? };
    if let [one] = old.as_slice() {
        return bpf::attach_device_program(cgroup, &program, Some(one));
    }
    bpf::attach_device_program(cgroup, &program, None)?;
    old.iter().try_for_each(|other: &DeviceProgram| bpf::detach_device_program(cgroup, other))
}

#[cfg(test)]
mod checks {
    use super::*;

    /// Runs a program as the kernel does.
    fn run(code: &[u64], kind: i32, wanted: i32, major: u32, minor: u32) -> bool {
        let context = [u64::try_from(wanted << 16 | kind).unwrap(), major.into(), minor.into()];
        let mut registers = [0_u64; 8];
        let mut at = 0;
        loop {
            let [op, regs, o0, o1, c0, c1, c2, c3] = code[at].to_ne_bytes();
            let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
            let offset = usize::from(u16::from_ne_bytes([o0, o1]));
            let constant = i64::from(i32::from_ne_bytes([c0, c1, c2, c3])).cast_unsigned();
            at += 1;
            match op {
                0x61 => registers[to] = context[offset / 4],
                0x57 => registers[to] &= constant,
                0x77 => registers[to] >>= constant,
                0xbf => registers[to] = registers[from],
                0xb7 => registers[to] = constant,
                0x55 if registers[to] != constant => at += offset,
                0x15 if registers[to] == constant => at += offset,
                0x55 | 0x15 => {}
                0x95 => return registers[0] == 1,
                _ => panic!("instruction {op:#x}"),
            }
        }
    }

    /// The rules, read literally: each wanted bit is decided by the last rule that speaks of it.
    fn read(rules: &[DeviceRule], kind: i32, wanted: i32, major: u32, minor: u32) -> bool {
        [MAKE, READ, WRITE].into_iter().filter(|bit| wanted & bit != 0).all(|bit| {
            let speaks = |rule: &&DeviceRule| {
                let kinds = match rule.kind {
                    DeviceKind::All => true,
                    DeviceKind::Block => kind == BLOCK,
                    DeviceKind::Character => kind == CHARACTER,
                };
                let number = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
                kinds
                    && number(rule.major, major)
                    && number(rule.minor, minor)
                    && bits(rule.access) & bit != 0
            };
            rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn the_program_decides_as_the_rules_read() {
        let mut seed = 0x1234_5678_u32;
        let mut random = |end: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % end
        };
        for _ in 0..200 {
            let rules: Vec<DeviceRule> = (0..random(9))
                .map(|_| {
                    let access = random(7) + 1;
                    if random(6) == 0 {
                        let kind = DeviceKind::All;
                        let (major, minor, access) = (None, None, Access::ALL);
                        return DeviceRule { allow: random(2) == 0, kind, major, minor, access };
                    }
                    DeviceRule {
                        allow: random(3) > 0,
                        kind: [DeviceKind::Block, DeviceKind::Character][random(2) as usize],
                        major: (random(2) == 0).then(|| random(3)),
                        minor: (random(2) == 0).then(|| random(3)),
                        access: Access {
                            make: access & 1 != 0,
                            read: access & 2 != 0,
                            write: access & 4 != 0,
                        },
                    }
                })
                .collect();
            let code = program(&rules);
            assert!(code.len() <= 8 * rules.len() + 8);
            for kind in [BLOCK, CHARACTER] {
                for wanted in 1..8 {
                    for (major, minor) in (0..3).flat_map(|major| (0..3).map(move |minor| (major, minor))) {
                        let found = run(&code, kind, wanted, major, minor);
                        assert_eq!(found, read(&rules, kind, wanted, major, minor), "{rules:?}");
                    }
                }
            }
        }
    }
}
