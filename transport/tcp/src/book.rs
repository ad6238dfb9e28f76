//! Who can be reached where: every node's address book, spread by gossip.
//!
//! A node announces its own addresses with its incarnation; others pass on what is news to them. The announcement of a
//! later start replaces the earlier one. The book is bounded: as many nodes as the run may have, at most
//! [`MOST_ADDRESSES`] addresses each.

use crate::frame::{CONTROL, FrameError, Reader};
use kronfleet_core::cluster::Incarnation;
use kronfleet_core::transport::NodeId;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses of one node at most.
pub const MOST_ADDRESSES: usize = 4;

/// Where a node listens.
pub type Address = SocketAddr;

/// Bytes that a list of addresses takes.
pub(crate) fn list_length(addresses: &[Address]) -> usize {
    1 + addresses.iter().map(|address| if address.is_ipv4() { 1 + 4 + 2 } else { 1 + 16 + 2 }).sum::<usize>()
}

pub(crate) fn write_addresses(addresses: &[Address], target: &mut Vec<u8>) {
    target.push(addresses.len() as u8);
    for address in addresses {
        match address.ip() {
            IpAddr::V4(ip) => {
                target.push(4);
                target.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                target.push(6);
                target.extend(ip.octets());
            }
        }
        target.extend(address.port().to_le_bytes());
    }
}

pub(crate) fn read_addresses(reader: &mut Reader<'_>) -> Result<Vec<Address>, FrameError> {
    let count = usize::from(reader.u8("number of addresses")?);
    if count > MOST_ADDRESSES {
        return Err(FrameError::Field("number of addresses"));
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        let ip = match reader.u8("family of an address")? {
            4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>("address")?)),
            6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>("address")?)),
            _ => return Err(FrameError::Field("family of an address")),
        };
        let port = reader.u16("port")?;
        if port == 0 || ip.is_unspecified() || ip.is_multicast() {
            return Err(FrameError::Field("address"));
        }
        addresses.push(Address::new(ip, port));
    }
    Ok(addresses)
}

/// What is known of one node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Which start of the node announced them.
    pub incarnation: Incarnation,
    /// Where it listens; none if it cannot be dialled.
    pub addresses: Vec<Address>,
}

/// The addresses of all nodes that were heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book(BTreeMap<NodeId, Entry>);

impl Book {
    /// What is known of `node`.
    pub fn entry(&self, node: NodeId) -> Option<&Entry> {
        self.0.get(&node)
    }

    /// All entries, in the order of their nodes.
    pub fn entries(&self) -> impl Iterator<Item = (NodeId, &Entry)> {
        self.0.iter().map(|(&node, entry)| (node, entry))
    }

    /// Takes an announcement; answers whether it was news.
    ///
    /// Of one start, an announcement with more addresses replaces one with fewer: a node that listens everywhere
    /// learns its addresses from its connections.
    pub fn learn(&mut self, node: NodeId, entry: Entry) -> bool {
        let rank = |entry: &Entry| (entry.incarnation, entry.addresses.len());
        let known = self.0.entry(node).or_default();
        let news = rank(&entry) > rank(known);
        if news {
            *known = entry;
        }
        news
    }

    /// Writes entries of `nodes` until a frame is full; answers how many of them were dealt with.
    pub(crate) fn write(&self, nodes: impl Iterator<Item = NodeId>, target: &mut Vec<u8>) -> usize {
        let mut done = 0;
        for node in nodes {
            if let Some(Entry { incarnation, addresses }) = self.0.get(&node) {
                if target.len() + 12 + list_length(addresses) > CONTROL {
                    break;
                }
                target.extend(node.0.to_le_bytes());
                target.extend(incarnation.0.to_le_bytes());
                write_addresses(addresses, target);
            }
            done += 1;
        }
        done
    }
}

/// Reads the body of a frame of announcements.
///
/// # Errors
/// If it is none.
pub fn read(bytes: &[u8]) -> Result<Vec<(NodeId, Entry)>, FrameError> {
    let mut reader = Reader(bytes);
    // The body's length bounds the list: each entry takes 13 bytes at least.
    let mut entries = Vec::with_capacity(bytes.len() / 13);
    while reader.end("").is_err() {
        let node = NodeId(reader.u32("node")?);
        let incarnation = Incarnation(reader.u64("incarnation")?);
        entries.push((node, Entry { incarnation, addresses: read_addresses(&mut reader)? }));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let address = (any::<bool>(), 1..=254_u8, 1..=u16::MAX).prop_map(|(four, last, port)| {
            let ip = if four {
                IpAddr::from([10, 0, 0, last])
            } else {
                IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, u16::from(last)])
            };
            Address::new(ip, port)
        });
        (1..5_u64, proptest::collection::vec(address, 0..=MOST_ADDRESSES))
            .prop_map(|(incarnation, addresses)| Entry { incarnation: Incarnation(incarnation), addresses })
    }

    proptest! {
        /// A book that was written frame by frame is read whole.
        #[test]
        fn books_are_read_as_written(entries in proptest::collection::vec(entry(), 0..200)) {
            let mut book = Book::default();
            for (node, entry) in entries.into_iter().enumerate() {
                book.learn(NodeId(node as u32), entry);
            }
            let nodes: Vec<NodeId> = book.0.keys().copied().collect();
            let (mut done, mut copy) = (0, Book::default());
            while done < nodes.len() {
                let mut bytes = Vec::new();
                let written = book.write(nodes[done..].iter().copied(), &mut bytes);
                prop_assert!(written > 0 && bytes.len() <= CONTROL);
                done += written;
                for (node, entry) in read(&bytes).unwrap() {
                    copy.learn(node, entry);
                }
            }
            prop_assert_eq!(copy, book);
        }

        /// In whatever order and however often announcements come, all books become the same.
        #[test]
        fn gossip_converges(entries in proptest::collection::vec((0..3_u32, entry()), 1..12)) {
            // One start says one thing per number of addresses.
            let mut said = BTreeMap::new();
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(node, entry)| {
                    let key = (node, entry.incarnation, entry.addresses.len());
                    (NodeId(node), said.entry(key).or_insert(entry).clone())
                })
                .collect();
            let (mut forward, mut backward) = (Book::default(), Book::default());
            for (node, entry) in &entries {
                forward.learn(*node, entry.clone());
            }
            for (node, entry) in entries.iter().rev().chain(&entries) {
                backward.learn(*node, entry.clone());
            }
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn any_bytes_are_a_book_or_an_error(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
