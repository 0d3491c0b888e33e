//! Memory that a process gives back while it waits.

use std::io;

/// Drops the pages of this program's own code and constants from this process's memory; they come back from the page cache when
/// they are next used. A process that waits for long, as one per created container does, then holds its few written pages only.
///
/// # Errors
/// When the kernel refuses; nothing is lost then.
pub fn release_program_pages() -> io::Result<()> {
    // SAFETY: getauxval has no preconditions.
    let (table, count) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    // The program is not relocated where it is linked statically without PIE; else its addresses are not those of its table.
    for index in 0..count {
        let entry = table + index * size_of::<libc::Elf64_Phdr>() as libc::c_ulong;
        // SAFETY: the kernel says that the program's headers are there, `count` of them.
        let header = unsafe { &*(entry as *const libc::Elf64_Phdr) };
        let written = header.p_flags & libc::PF_W != 0;
        if header.p_type != libc::PT_LOAD || written {
            continue;
        }
        release(header.p_vaddr, header.p_memsz)?;
    }
    Ok(())
}

fn release(address: u64, size: u64) -> io::Result<()> {
    const PAGE: u64 = 4096;
    let (start, end) = (address / PAGE * PAGE, (address + size).next_multiple_of(PAGE));
    let too_far = |_| io::Error::from(io::ErrorKind::InvalidData);
    let (start, length) =
        (usize::try_from(start).map_err(too_far)?, usize::try_from(end - start).map_err(too_far)?);
    let place = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is a mapping of the program's file that is never written to: what is dropped is read again.
    super::check(unsafe { libc::madvise(place, length, libc::MADV_DONTNEED) }.into()).map(drop)
}
