//! nf_tables: tables, chains, sets, their elements and rules as messages (`linux/netfilter/nf_tables.h`).
//!
//! All changes go in one transaction, between `BEGIN` and `END`: the kernel does all of it or nothing. Numbers in
//! attributes are big-endian. A rule is a list of expressions, small instructions over registers; register 1 is
//! the 16 bytes that the 4-byte registers 8 to 11 also name, so a concatenated key `a . b . c` is loaded into 1, 9
//! and 10, and looked up in 1.

use super::message::{ACK, APPEND, Batch, Body, CREATE, DUMP, EXCLUSIVE, array, attribute, attributes};
use super::{Conversation, NetlinkError, Refusal};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
const GETSETELEM: u16 = SUBSYSTEM << 8 | 13;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;
const GETGEN: u16 = SUBSYSTEM << 8 | 16;

/// `struct nfgenmsg` for `NFPROTO_IPV4`.
const IPV4: [u8; 4] = [2, 0, 0, 0];

/// The register that a verdict is written to.
const VERDICT: u32 = 0;
/// The first data register, 16 bytes.
pub(crate) const FIRST: u32 = 1;
/// The second 4 bytes of [`FIRST`].
pub(crate) const FIRST_PLUS_4: u32 = 9;
/// The third 4 bytes of [`FIRST`].
pub(crate) const FIRST_PLUS_8: u32 = 10;
/// The second data register, 16 bytes.
pub(crate) const SECOND: u32 = 2;

/// Type numbers of `nft`, so that it can list our sets; the kernel only stores them.
pub(crate) mod datatype {
    pub(crate) const IPV4_ADDRESS: u32 = 7;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const PORT: u32 = 13;
    pub(crate) const INTERFACE: u32 = 41;

    /// A concatenation: 6 bits a part.
    pub(crate) const fn join(left: u32, right: u32) -> u32 {
        left << 6 | right
    }
}

/// What a base chain is hooked to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(crate) hook: u32,
    /// Lower is earlier.
    pub(crate) priority: i32,
}

/// A set, or a map when it has data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    /// [`datatype`] and length in bytes of a key.
    pub(crate) key: (u32, u32),
    /// [`datatype`] and length in bytes of what a key maps to.
    pub(crate) data: Option<(u32, u32)>,
    /// Keys are ranges.
    pub(crate) interval: bool,
    /// Keys are in the machine's byte order: how `nft` shows interface names.
    pub(crate) native: bool,
}

/// One element to add or to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    /// The set it is in.
    pub(crate) set: &'static str,
    /// Its key.
    pub(crate) key: Vec<u8>,
    /// What the key maps to; empty in a set.
    pub(crate) data: Vec<u8>,
    /// The first key after the range, in an interval set.
    pub(crate) end: Option<Vec<u8>>,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expression {
    /// Load packet or interface data into a register (`NFT_META_*`).
    Meta { key: u32, to: u32 },
    /// Load `length` bytes at `offset` of the network (1) or transport (2) header.
    Payload { base: u32, offset: u32, length: u32, to: u32 },
    /// Load the type of the destination address, as the routing table sees it.
    DestinationType { to: u32 },
    /// Load a field of the tracked connection (`NFT_CT_*`).
    Connection { key: u32, to: u32 },
    /// Keep the bits of `mask` in register 1.
    Mask { mask: [u8; 4] },
    /// Go on only if register 1 is equal, or is not equal, to `value`.
    Compare { equal: bool, value: &'static [u8] },
    /// Go on only if register 1 is that port.
    ComparePort(u16),
    /// Load a port into register 1.
    LoadPort(u16),
    /// Write the port in register 1 into the transport header at `offset`, whose checksum is at `checksum`.
    SetPort { offset: u32, checksum: u32 },
    /// Go on only if the key in register 1 is, or is not, in the set.
    Lookup { set: &'static str, inverted: bool },
    /// Replace register 1 by what the map has for it, or stop here.
    Map { set: &'static str },
    /// Rewrite the destination to the address in register 1 and the port in register 9.
    DestinationNat,
    /// Rewrite the source to the outgoing interface's address.
    Masquerade,
    /// End: accept (1) or drop (0).
    Verdict(u32),
}

/// A transaction that is being written.
pub(crate) struct Transaction {
    batch: Batch,
    table: &'static str,
}

/// The requests of a transaction that were refused.
pub(crate) type Refusals = Vec<Refusal>;

impl Transaction {
    /// An empty transaction on one table of family `ip`.
    pub(crate) fn new(conversation: &Conversation, table: &'static str) -> Transaction {
        let mut batch = conversation.batch();
        boundary(&mut batch, BATCH_BEGIN, None);
        Transaction { batch, table }
    }

    /// A transaction that is refused, with `ERESTART`, unless the rules are still those of that generation.
    pub(crate) fn at_generation(
        conversation: &Conversation,
        table: &'static str,
        generation: u32,
    ) -> Transaction {
        let mut batch = conversation.batch();
        boundary(&mut batch, BATCH_BEGIN, Some(generation));
        Transaction { batch, table }
    }

    /// Creates the table. Refused with `EEXIST` when it is there: of two racing processes one creates all.
    pub(crate) fn create_table(&mut self) {
        self.request("create the nft table", NEWTABLE, CREATE | EXCLUSIVE, |m| {
            m.big(2, 0);
        });
    }

    /// Creates a base chain that accepts what its rules do not decide.
    pub(crate) fn create_chain(&mut self, chain: &Chain) {
        self.request("create an nft chain", NEWCHAIN, CREATE, |m| {
            m.string(3, chain.name).string(7, chain.kind).big(5, 1);
            m.nested(4, |hook| {
                hook.big(1, chain.hook).bytes(2, &chain.priority.to_be_bytes());
            });
        });
    }

    /// Creates a set or map; `id` is any number that is unique in the transaction.
    pub(crate) fn create_set(&mut self, set: &Set, id: u32) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let flags = u32::from(set.interval) * INTERVAL + u32::from(set.data.is_some()) * MAP;
        self.request("create an nft set", NEWSET, CREATE, |m| {
            m.string(2, set.name).big(3, flags).big(4, set.key.0).big(5, set.key.1);
            if let Some((kind, length)) = set.data {
                m.big(6, kind).big(7, length);
            }
            m.big(10, id);
            // What `nft` keeps for itself: byte order of keys (0) and data (1); 1 is the machine's, 2 big-endian.
            let order = if set.native { 1 } else { 2 };
            m.bytes(13, &[0, 4, order, 0, 0, 0, 1, 4, 2, 0, 0, 0]);
        });
    }

    /// Appends a rule to a chain.
    pub(crate) fn append_rule(&mut self, chain: &str, rule: &[Expression]) {
        self.request("create an nft rule", NEWRULE, CREATE | APPEND, |m| {
            m.string(2, chain).nested(4, |list| rule.iter().for_each(|e| write_expression(list, *e)));
        });
    }

    /// Adds an element; the same element twice does no harm. Refused with `EEXIST` or `EBUSY` when the key maps to
    /// something else, and with `ENOENT` when there is no such table or set. Returns the request's index.
    pub(crate) fn add(&mut self, element: &Element) -> usize {
        self.element("add an nft set element", NEWSETELEM, CREATE, element)
    }

    /// Deletes an element. Refused with `ENOENT` when there is none. Returns the request's index.
    pub(crate) fn delete(&mut self, element: &Element) -> usize {
        self.element("delete an nft set element", DELSETELEM, 0, element)
    }

    /// Ends the transaction and returns what was refused; when that is anything, nothing was done.
    pub(crate) fn commit(mut self, conversation: &mut Conversation) -> Result<Refusals, NetlinkError> {
        // The last real message is the one that is acknowledged: `END` itself has no answer.
        self.batch.acknowledge_last();
        boundary(&mut self.batch, BATCH_END, None);
        conversation.transact(&self.batch)
    }

    fn element(&mut self, request: &'static str, kind: u16, flags: u16, element: &Element) -> usize {
        self.request(request, kind, flags, |m| {
            m.string(2, element.set).nested(3, |list| {
                list.nested(1, |e| {
                    e.nested(1, |key| {
                        key.bytes(1, &element.key);
                    });
                    if !element.data.is_empty() {
                        e.nested(2, |data| {
                            data.bytes(1, &element.data);
                        });
                    }
                });
                if let Some(end) = &element.end {
                    list.nested(1, |e| {
                        e.big(3, 1).nested(1, |key| {
                            key.bytes(1, end);
                        });
                    });
                }
            });
        })
    }

    fn request(
        &mut self,
        request: &'static str,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
    ) -> usize {
        let table = self.table;
        self.batch.message(request, kind, flags, |m| {
            m.raw(&IPV4).string(1, table);
            body(m);
        })
    }
}

fn boundary(batch: &mut Batch, kind: u16, generation: Option<u32>) {
    batch.message("change the nft rules", kind, 0, |m| {
        m.raw(&[0, 0]).raw(&SUBSYSTEM.to_be_bytes());
        if let Some(generation) = generation {
            m.big(1, generation);
        }
    });
}

/// The number of the last change to this name space's rules.
pub(crate) fn generation(conversation: &mut Conversation) -> Result<u32, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("look at the nft rules", GETGEN, ACK, |m| {
        m.raw(&[0; 4]);
    });
    let mut found = None;
    conversation.query(&batch, |_, payload| {
        let number =
            payload.get(4..).and_then(|bytes| attribute(bytes, 1)).and_then(|bytes| array(bytes, 0..4));
        found = number.map(u32::from_be_bytes);
    })?;
    // Zero names no generation: the transaction is then not checked, as on kernels before 4.13.
    Ok(found.unwrap_or(0))
}

/// An element of a map: key and data.
pub(crate) type Entry = (Vec<u8>, Vec<u8>);

/// Every element of a map.
pub(crate) fn elements(
    conversation: &mut Conversation,
    table: &str,
    set: &str,
) -> Result<Vec<Entry>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the published ports", GETSETELEM, DUMP, |m| {
        m.raw(&IPV4).string(1, table).string(2, set);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| {
        let list = payload.get(IPV4.len()..).and_then(|bytes| attribute(bytes, 3)).unwrap_or_default();
        found.extend(attributes(list).filter_map(|(_, element)| {
            let value = |kind| attribute(attribute(element, kind)?, 1).map(<[u8]>::to_vec);
            Some((value(1)?, value(2)?))
        }));
    })?;
    Ok(found)
}

fn write_expression(list: &mut Body<'_>, expression: Expression) {
    let mut write = |name: &str, data: &dyn Fn(&mut Body<'_>)| {
        list.nested(1, |e| {
            e.string(1, name).nested(2, |d| data(d));
        });
    };
    match expression {
        Expression::Meta { key, to } => write("meta", &|d| {
            d.big(1, to).big(2, key);
        }),
        Expression::Payload { base, offset, length, to } => write("payload", &|d| {
            d.big(1, to).big(2, base).big(3, offset).big(4, length);
        }),
        Expression::DestinationType { to } => write("fib", &|d| {
            d.big(1, to).big(2, 3).big(3, 2);
        }),
        Expression::Connection { key, to } => write("ct", &|d| {
            d.big(1, to).big(2, key);
        }),
        Expression::Mask { mask } => write("bitwise", &|d| {
            d.big(1, FIRST).big(2, FIRST).big(3, 4);
            d.nested(4, |value| {
                value.bytes(1, &mask);
            });
            d.nested(5, |value| {
                value.bytes(1, &[0; 4]);
            });
        }),
        Expression::Compare { equal, value } => write("cmp", &|d| {
            d.big(1, FIRST).big(2, u32::from(!equal)).nested(3, |data| {
                data.bytes(1, value);
            });
        }),
        Expression::ComparePort(port) => write("cmp", &|d| {
            d.big(1, FIRST).big(2, 0).nested(3, |data| {
                data.bytes(1, &port.to_be_bytes());
            });
        }),
        Expression::LoadPort(port) => write("immediate", &|d| {
            d.big(1, FIRST).nested(2, |data| {
                data.bytes(1, &port.to_be_bytes());
            });
        }),
        Expression::SetPort { offset, checksum } => write("payload", &|d| {
            // `NFT_PAYLOAD_CSUM_INET`.
            d.big(2, 2).big(3, offset).big(4, 2).big(5, FIRST).big(6, 1).big(7, checksum);
        }),
        Expression::Lookup { set, inverted } => write("lookup", &|d| {
            d.string(1, set).big(2, FIRST).big(5, u32::from(inverted));
        }),
        Expression::Map { set } => write("lookup", &|d| {
            d.string(1, set).big(2, FIRST).big(3, FIRST);
        }),
        Expression::DestinationNat => write("nat", &|d| {
            d.big(1, 1).big(2, 2).big(3, FIRST).big(5, FIRST_PLUS_4);
        }),
        Expression::Masquerade => write("masq", &|_| {}),
        Expression::Verdict(code) => write("immediate", &|d| {
            d.big(1, VERDICT).nested(2, |data| {
                data.nested(2, |verdict| {
                    verdict.big(1, code);
                });
            });
        }),
    }
}
