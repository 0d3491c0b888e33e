//! A profile through the compiler.

use stanza_container::seccomp::{Filter, compile};
use stanza_spec::oci::runtime::LinuxSeccomp;

use crate::Outcome;

pub(crate) fn run(text: &[u8]) -> Outcome {
    match serde_json::from_slice(text) {
        Ok(profile) => check(&profile),
        Err(_) => Ok(false),
    }
}

pub(crate) fn check(profile: &LinuxSeccomp) -> Outcome {
    let Ok(filter) = compile(profile) else { return Ok(false) };
    if Filter::from_bytes(&filter.to_bytes()).as_ref().ok() != Some(&filter) {
        return Err("a filter is not what its bytes say".into());
    }
    verify(filter.program())?;
    Ok(true)
}

/// What the kernel asks of a filter (`bpf_check_classic`, `seccomp_check_filter`): known instructions, aligned loads within
/// `struct seccomp_data`, jumps inside, a return at the end.
fn verify(program: &[u8]) -> Result<(), String> {
    const LONGEST: usize = 4096;
    let instructions: Vec<&[u8]> = program.chunks(8).collect();
    let count = instructions.len();
    if count == 0 || count > LONGEST || !program.len().is_multiple_of(8) {
        return Err(format!("a filter of {} bytes", program.len()));
    }
    for (at, instruction) in instructions.iter().enumerate() {
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let constant = u32::from_ne_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        let inside = |jump: usize| at + 1 + jump < count;
        let good = match code {
            // ld [k]
            0x20 => constant % 4 == 0 && constant < 64,
            // ja
            0x05 => usize::try_from(constant).is_ok_and(inside),
            // jeq, jgt, jge, jset with a constant
            0x15 | 0x25 | 0x35 | 0x45 => inside(instruction[2].into()) && inside(instruction[3].into()),
            // and, or with a constant
            0x54 | 0x44 => true,
            // ret k
            0x06 => true,
            _ => false,
        };
        if !good {
            return Err(format!("instruction {at} of {count} is none: {instruction:?}"));
        }
    }
    match instructions.last() {
        Some(last) if last[0] == 0x06 => Ok(()),
        _ => Err("a filter does not end with a return".into()),
    }
}
