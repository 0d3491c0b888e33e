//! nf_tables: tables, chains, sets, their elements and rules as messages (`linux/netfilter/nf_tables.h`).
//!
//! All changes go in one transaction, between `BEGIN` and `END`: the kernel does all of it or nothing. It may change
//! several tables. Numbers in attributes are big-endian. A rule is a list of expressions, small instructions over
//! registers: 64 bytes in 16 words ([`word`]). A concatenated key `a . b . c` is loaded into words that follow each
//! other, each part padded to whole words, and looked up from the first.

use std::fmt;

use super::message::{ACK, APPEND, Batch, Body, CREATE, DUMP, array, attribute, attributes, text};
use super::{Conversation, NetlinkError, Refusal};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const GETCHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const GETRULE: u16 = SUBSYSTEM << 8 | 7;
const DELRULE: u16 = SUBSYSTEM << 8 | 8;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
const GETSETELEM: u16 = SUBSYSTEM << 8 | 13;
const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;
const GETGEN: u16 = SUBSYSTEM << 8 | 16;

/// Bytes of `struct nfgenmsg`.
const HEADER: usize = 4;

/// The register that a verdict is written to.
const VERDICT: u32 = 0;

/// `NFT_JUMP`.
const JUMP: u32 = (-3_i32).cast_unsigned();

/// The register of the word `index`, 0 to 15; longer values go on in the words after it.
pub(crate) const fn word(index: u32) -> u32 {
    8 + index
}

/// The first word, where keys, masks and comparisons are looked for.
pub(crate) const FIRST: u32 = word(0);

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableFamily {
    /// IPv4 and IPv6.
    Inet = 1,
    Ipv4 = 2,
    /// Frames on bridges.
    Bridge = 7,
    Ipv6 = 10,
}

impl TableFamily {
    /// `struct nfgenmsg`.
    fn header(self) -> [u8; HEADER] {
        [self as u8, 0, 0, 0]
    }

    fn of(payload: &[u8]) -> Option<TableFamily> {
        match payload.first()? {
            1 => Some(TableFamily::Inet),
            2 => Some(TableFamily::Ipv4),
            7 => Some(TableFamily::Bridge),
            10 => Some(TableFamily::Ipv6),
            _ => None,
        }
    }
}

impl fmt::Display for TableFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableFamily::Inet => "inet",
            TableFamily::Ipv4 => "ip",
            TableFamily::Bridge => "bridge",
            TableFamily::Ipv6 => "ip6",
        })
    }
}

/// A table; shown as `nft` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: TableFamily,
    pub(crate) name: &'static str,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}

/// Type numbers of `nft`, so that it can list our sets; the kernel only stores them.
pub(crate) mod datatype {
    pub(crate) const NETWORK_PROTOCOL: u32 = 2;
    pub(crate) const IPV4_ADDRESS: u32 = 7;
    pub(crate) const IPV6_ADDRESS: u32 = 8;
    pub(crate) const HARDWARE_ADDRESS: u32 = 9;
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
    pub(crate) table: Table,
    pub(crate) name: &'static str,
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(crate) hook: u32,
    /// Lower is earlier.
    pub(crate) priority: i32,
}

/// A set, or a map when it has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) table: Table,
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
    pub(crate) set: &'static Set,
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
    /// Load `length` bytes at `offset` of the link (0), network (1) or transport (2) header.
    Payload { base: u32, offset: u32, length: u32, to: u32 },
    /// Load the type of the destination address, as the routing table sees it.
    DestinationType { to: u32 },
    /// Load a field of the tracked connection (`NFT_CT_*`).
    Connection { key: u32, to: u32 },
    /// Keep the bits of `mask` in the first word.
    Mask { mask: [u8; 4] },
    /// Go on only if what begins at the first word is equal, or is not equal, to `value`.
    Compare { equal: bool, value: &'static [u8] },
    /// Go on only if the first word is that port.
    ComparePort(u16),
    /// Load a port into the first word.
    LoadPort(u16),
    /// Write the port in the first word into the transport header at `offset`, whose checksum is at `checksum`.
    SetPort { offset: u32, checksum: u32 },
    /// Go on only if the key that begins at the first word is, or is not, in the set.
    Lookup { set: &'static Set, inverted: bool },
    /// Replace what begins at the first word by what the map has for it, or stop here.
    Map { set: &'static Set },
    /// Rewrite the destination to the address (`NFPROTO_*`) at the first word and the port in `port`.
    DestinationNat { family: u8, port: u32 },
    /// Rewrite the source to the outgoing interface's address.
    Masquerade,
    /// End: accept (1) or drop (0).
    Verdict(u32),
    /// Go through a chain of the same table and come back if it ends nothing.
    Jump(&'static str),
}

/// A transaction that is being written.
pub(crate) struct Transaction {
    batch: Batch,
}

/// The requests of a transaction that were refused.
pub(crate) type Refusals = Vec<Refusal>;

impl Transaction {
    /// An empty transaction.
    pub(crate) fn new(conversation: &Conversation) -> Transaction {
        let mut batch = conversation.batch();
        boundary(&mut batch, BATCH_BEGIN, None);
        Transaction { batch }
    }

    /// A transaction that is refused, with `ERESTART`, unless the rules are still those of that generation.
    pub(crate) fn at_generation(conversation: &Conversation, generation: u32) -> Transaction {
        let mut batch = conversation.batch();
        boundary(&mut batch, BATCH_BEGIN, Some(generation));
        Transaction { batch }
    }

    /// Creates the table unless it is there.
    pub(crate) fn ensure_table(&mut self, table: Table) {
        self.request("create the nft table", NEWTABLE, CREATE, table, |m| {
            m.big(2, 0);
        });
    }

    /// Deletes the table with all that is in it. Refused with `ENOENT` when there is none.
    pub(crate) fn delete_table(&mut self, table: Table) {
        self.request("delete the nft table", DELTABLE, 0, table, |_| {});
    }

    /// Creates a base chain that accepts what its rules do not decide, unless it is there.
    pub(crate) fn ensure_chain(&mut self, chain: &Chain) {
        self.request("create an nft chain", NEWCHAIN, CREATE, chain.table, |m| {
            m.string(3, chain.name).string(7, chain.kind).big(5, 1);
            m.nested(4, |hook| {
                hook.big(1, chain.hook).bytes(2, &chain.priority.to_be_bytes());
            });
        });
    }

    /// Creates a chain that others jump to, unless it is there.
    pub(crate) fn ensure_plain_chain(&mut self, table: Table, name: &str) {
        self.request("create an nft chain", NEWCHAIN, CREATE, table, |m| {
            m.string(3, name);
        });
    }

    /// Creates a set or map unless it is there; `id` is any number that is unique in the transaction. Refused with
    /// `EEXIST` when there is another of that name (from Linux 6.2 on).
    pub(crate) fn ensure_set(&mut self, set: &Set, id: u32) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        let flags = u32::from(set.interval) * INTERVAL + u32::from(set.data.is_some()) * MAP;
        self.request("create an nft set", NEWSET, CREATE, set.table, |m| {
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
    pub(crate) fn append_rule(&mut self, table: Table, chain: &str, rule: &[Expression]) {
        self.request("create an nft rule", NEWRULE, CREATE | APPEND, table, |m| {
            m.string(2, chain).nested(4, |list| rule.iter().for_each(|e| write_expression(list, *e)));
        });
    }

    /// Deletes the rules of a chain.
    pub(crate) fn flush_chain(&mut self, table: Table, chain: &str) {
        self.request("empty an nft chain", DELRULE, 0, table, |m| {
            m.string(2, chain);
        });
    }

    /// Adds elements, those of one set that follow each other with one request; the same element twice does no harm. Refused
    /// with `EEXIST` or `EBUSY` when a key maps to something else, or a range overlaps another, and with `ENOENT` when
    /// there is no such table or set.
    pub(crate) fn add(&mut self, elements: &[Element]) {
        self.elements("add an nft set element", NEWSETELEM, CREATE, elements);
    }

    /// Deletes elements. Refused with `ENOENT` when one is not there.
    pub(crate) fn delete(&mut self, elements: &[Element]) {
        self.elements("delete an nft set element", DELSETELEM, 0, elements);
    }

    /// Ends the transaction and returns what was refused; when that is anything, nothing was done.
    pub(crate) fn commit(mut self, conversation: &mut Conversation) -> Result<Refusals, NetlinkError> {
        // The last real message is the one that is acknowledged: `END` itself has no answer.
        self.batch.acknowledge_last();
        boundary(&mut self.batch, BATCH_END, None);
        conversation.transact(&self.batch)
    }

    fn elements(&mut self, request: &'static str, kind: u16, flags: u16, elements: &[Element]) {
        /// The list is one attribute, of at most 64 KiB.
        const AT_ONCE: usize = 400;
        for run in elements.chunk_by(|one, next| one.set == next.set) {
            for part in run.chunks(AT_ONCE) {
                let set = part[0].set;
                self.request(request, kind, flags, set.table, |m| {
                    m.string(2, set.name)
                        .nested(3, |list| part.iter().for_each(|element| write_element(list, element)));
                });
            }
        }
    }

    fn request(
        &mut self,
        request: &'static str,
        kind: u16,
        flags: u16,
        table: Table,
        body: impl FnOnce(&mut Body<'_>),
    ) {
        self.batch.message(request, kind, flags, |m| {
            m.raw(&table.family.header()).string(1, table.name);
            body(m);
        });
    }
}

fn write_element(list: &mut Body<'_>, element: &Element) {
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

/// Every element of a set or map; in an interval set each range.
pub(crate) fn elements(
    conversation: &mut Conversation,
    set: &'static Set,
) -> Result<Vec<Element>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list an nft set", GETSETELEM, DUMP, |m| {
        m.raw(&set.table.family.header()).string(1, set.table.name).string(2, set.name);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| {
        let list = payload.get(HEADER..).and_then(|bytes| attribute(bytes, 3)).unwrap_or_default();
        found.extend(attributes(list).filter_map(|(_, element)| {
            let value = |kind| attribute(attribute(element, kind)?, 1).map(<[u8]>::to_vec);
            let is_end = number(element, 3).is_some_and(|flags| flags & 1 != 0);
            let data = value(2).unwrap_or_default();
            Some((Element { set, key: value(1)?, data, end: None }, is_end))
        }));
    })?;
    Ok(if set.interval { ranges(found) } else { found.into_iter().map(|(element, _)| element).collect() })
}

/// Joins each beginning with the end that follows it: the kernel keeps both as elements.
fn ranges(mut bounds: Vec<(Element, bool)>) -> Vec<Element> {
    // Where one range ends another may begin: the end comes first.
    bounds.sort_by(|(one, one_ends), (other, other_ends)| {
        one.key.cmp(&other.key).then(other_ends.cmp(one_ends))
    });
    let mut found: Vec<Element> = Vec::new();
    for (bound, is_end) in bounds {
        match found.last_mut() {
            Some(open) if is_end && open.end.is_none() => open.end = Some(bound.key),
            _ if is_end => {}
            _ => found.push(bound),
        }
    }
    found
}

fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    array(attribute(attributes, kind)?, 0..4).map(u32::from_be_bytes)
}

/// A base chain of any table of this name space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) family: TableFamily,
    pub(crate) table: String,
    pub(crate) name: String,
    /// As [`Chain::hook`].
    pub(crate) hook: u32,
    /// What its rules do not decide is dropped.
    pub(crate) drops: bool,
}

/// The base chains of all tables that see IP packets.
pub(crate) fn base_chains(conversation: &mut Conversation) -> Result<Vec<BaseChain>, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the nft chains", GETCHAIN, DUMP, |m| {
        m.raw(&[0; HEADER]);
    });
    let mut found = Vec::new();
    conversation.query(&batch, |_, payload| {
        found.extend((|| {
            let attributes = payload.get(HEADER..)?;
            Some(BaseChain {
                family: TableFamily::of(payload)?,
                table: text(attribute(attributes, 1)?)?.to_owned(),
                name: text(attribute(attributes, 3)?)?.to_owned(),
                hook: number(attribute(attributes, 4)?, 1)?,
                drops: number(attributes, 5) == Some(0),
            })
        })());
    })?;
    Ok(found)
}

/// Whether the last rule of a chain drops or rejects every packet that comes to it.
pub(crate) fn ends_with_drop(
    conversation: &mut Conversation,
    chain: &BaseChain,
) -> Result<bool, NetlinkError> {
    let mut batch = conversation.batch();
    batch.message("list the rules of an nft chain", GETRULE, DUMP, |m| {
        m.raw(&chain.family.header()).string(1, &chain.table).string(2, &chain.name);
    });
    let mut drops = false;
    conversation.query(&batch, |_, payload| {
        let rule = payload.get(HEADER..).unwrap_or_default();
        // Kernels before 4.15 tell the rules of every chain.
        if attribute(rule, 2).and_then(text) == Some(&chain.name) {
            drops = attribute(rule, 4).is_some_and(drops_everything);
        }
    })?;
    Ok(drops)
}

/// Whether a list of expressions is a drop or reject, perhaps with counting and logging, and nothing that decides.
fn drops_everything(list: &[u8]) -> bool {
    const DROP: u32 = 0;
    let mut drops = false;
    for (_, expression) in attributes(list) {
        let data = attribute(expression, 2).unwrap_or_default();
        match attribute(expression, 1).and_then(text) {
            Some("counter" | "log") => {}
            Some("reject") => drops = true,
            Some("immediate") => {
                let verdict = || number(attribute(attribute(data, 2)?, 2)?, 1);
                drops = verdict() == Some(DROP);
            }
            // A target of iptables.
            Some("target") => {
                drops = matches!(attribute(data, 1).and_then(text), Some("DROP" | "REJECT"));
            }
            _ => return false,
        }
    }
    drops
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
            d.string(1, set.name).big(2, FIRST).big(5, u32::from(inverted));
        }),
        Expression::Map { set } => write("lookup", &|d| {
            d.string(1, set.name).big(2, FIRST).big(3, FIRST);
        }),
        Expression::DestinationNat { family, port } => write("nat", &|d| {
            d.big(1, 1).big(2, u32::from(family)).big(3, FIRST).big(5, port);
        }),
        Expression::Masquerade => write("masq", &|_| {}),
        Expression::Verdict(code) => write("immediate", &|d| {
            d.big(1, VERDICT).nested(2, |data| {
                data.nested(2, |verdict| {
                    verdict.big(1, code);
                });
            });
        }),
        Expression::Jump(chain) => write("immediate", &|d| {
            d.big(1, VERDICT).nested(2, |data| {
                data.nested(2, |verdict| {
                    verdict.big(1, JUMP).string(2, chain);
                });
            });
        }),
    }
}
