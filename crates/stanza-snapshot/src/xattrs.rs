//! Extended attributes of one file, however it is reached.

use rustix::io::Errno;

/// Names and values, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Longest list of names and longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// Reads those that are wanted by the calls that list them and get one.
pub(crate) fn read_xattrs(
    wanted: fn(&[u8]) -> bool,
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Xattrs, Errno> {
    // Nearly no file has any; a short buffer is tried first.
    let mut short = [0; 256];
    let mut long = Vec::new();
    let names = match list(&mut short) {
        Ok(length) => &short[..length],
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            long.resize(XATTR_MAX, 0);
            let length = list(&mut long)?;
            &long[..length]
        }
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && wanted(name)) {
        let mut value = vec![0; XATTR_MAX];
        match get(name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                xattrs.push((name.to_vec(), value));
            }
            // Taken away meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}
