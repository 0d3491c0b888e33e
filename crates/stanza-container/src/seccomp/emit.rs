//! An assembler of classic BPF that writes backwards.
//!
//! A seccomp program only ever jumps forward. Written from its last instruction to its first, every target is
//! known when a jump to it is written, so one pass is enough, and a jump that is too long for its 8-bit offset is
//! seen at once: it goes to a copy of the `ret` it wanted, or to a `ja` (32-bit offset) written just before it.

/// `man 2 seccomp`: `struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }`.
pub(super) mod offset {
    pub(in super::super) const NUMBER: u32 = 0;
    pub(in super::super) const ARCHITECTURE: u32 = 4;

    /// The two halves of argument `index`: (high, low). All supported machines are little-endian.
    pub(in super::super) const fn argument(index: u8) -> (u32, u32) {
        let low = 16 + 8 * (index as u32);
        (low + 4, low)
    }
}

/// `BPF_LD | BPF_W | BPF_ABS`.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
pub(super) const GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(super) const AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// One `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) yes: u8,
    pub(super) no: u8,
    pub(super) constant: u32,
}

/// A place in the program: the number of instructions behind it.
pub(super) type Label = usize;

/// The longest conditional jump.
const REACH: usize = u8::MAX as usize;

/// A program, last instruction first.
pub(super) struct Program {
    reversed: Vec<Instruction>,
    /// The newest `ret` of each value.
    returns: Vec<(u32, Label)>,
}

impl Program {
    pub(super) fn new() -> Program {
        Program { reversed: Vec::with_capacity(1024), returns: Vec::with_capacity(8) }
    }

    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    fn push(&mut self, code: u16, yes: u8, no: u8, constant: u32) -> Label {
        self.reversed.push(Instruction { code, yes, no, constant });
        self.reversed.len() - 1
    }

    /// Whether a conditional jump written after `later` more instructions still reaches `label`.
    fn reaches(&self, label: Label, later: usize) -> bool {
        self.reversed.len() + later <= label + 1 + REACH
    }

    /// A place that returns `action`: one that is near, or a new one.
    pub(super) fn return_action(&mut self, action: u32) -> Label {
        let known = self.returns.iter().position(|(other, _)| *other == action);
        match known {
            Some(at) if self.reaches(self.returns[at].1, 4) => self.returns[at].1,
            _ => {
                let label = self.push(RETURN, 0, 0, action);
                match known {
                    Some(at) => self.returns[at].1 = label,
                    None => self.returns.push((action, label)),
                }
                label
            }
        }
    }

    /// A place that does what `label` does and can be reached after `later` more instructions.
    fn near(&mut self, label: Label, later: usize) -> Label {
        if self.reaches(label, later) {
            label
        } else if self.reversed[label].code == RETURN {
            self.return_action(self.reversed[label].constant)
        } else {
            self.jump(label)
        }
    }

    fn jump(&mut self, label: Label) -> Label {
        let distance = self.reversed.len() - 1 - label;
        let distance = u32::try_from(distance).expect("a program is far shorter than 2^32 instructions");
        self.push(JUMP, 0, 0, distance)
    }

    /// `if A <code> constant goto yes else goto no`.
    pub(super) fn branch(&mut self, code: u16, constant: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes, 2);
        let no = self.near(no, 1);
        let here = self.reversed.len();
        let offset = |label: Label| u8::try_from(here - 1 - label).expect("`near` made the target reachable");
        self.push(code, offset(yes), offset(no), constant)
    }

    /// Makes `next` the instruction that runs after the one written next.
    fn fall_to(&mut self, next: Label) {
        if next + 1 != self.reversed.len() {
            if self.reversed[next].code == RETURN {
                let action = self.reversed[next].constant;
                self.push(RETURN, 0, 0, action);
            } else {
                self.jump(next);
            }
        }
    }

    /// `A = data[offset]`, then `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// `A &= mask`, then `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        if mask == u32::MAX {
            return next;
        }
        self.fall_to(next);
        self.push(AND, 0, 0, mask)
    }

    /// The program as the kernel reads it, starting at the instruction written last.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.reversed.len() * 8);
        for instruction in self.reversed.iter().rev() {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.yes, instruction.no]);
            bytes.extend_from_slice(&instruction.constant.to_ne_bytes());
        }
        bytes
    }
}
