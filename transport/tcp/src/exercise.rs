//! Arbitrary bytes through everything that reads them, without sockets: for fuzzing.

use crate::book;
use crate::frame::{CONTROL, Expected, GREATEST_VERSION, HEADER, Kind, body, header};
use crate::hello::Refusal;
use crate::parley::{Greeting, Role, Terms};
use crate::reception::{BEFORE_HELLO, Reception};
use kronfleet_core::cluster::RunId;
use kronfleet_core::transport::NodeId;

/// The longest frame of the exercises, in bytes.
const LONGEST: usize = 1000;

/// Takes `bytes` for a frame of an agreed version, and reads its body.
///
/// # Panics
/// If a frame is accepted that breaks the limits: never, it is hoped.
pub fn exercise_frame(bytes: &[u8]) {
    let expected = Expected { version: Some(GREATEST_VERSION), longest: LONGEST };
    let Ok(Some(found)) = header(bytes, &expected) else {
        return;
    };
    assert!(found.length <= LONGEST.max(CONTROL), "{found:?} is beyond the limits");
    let Ok(Some(content)) = body(bytes, &found) else {
        return;
    };
    read(found.kind, content);
}

/// Takes `bytes` for all that arrives on a connection, in pieces as long as the first byte says, and follows the rules
/// of a node that was dialled.
///
/// # Panics
/// If more memory is taken than the limits say: never, it is hoped.
pub fn exercise_handshake(bytes: &[u8]) {
    let Some((&piece, mut bytes)) = bytes.split_first() else {
        return;
    };
    let terms = Terms { run: RunId(7), node: NodeId(0), nodes: 8, longest: LONGEST as u32 };
    let mut reception = Reception::new();
    let mut agreed = false;
    assert_eq!(reception.vacant().len(), BEFORE_HELLO);
    loop {
        let vacant = reception.vacant();
        let count = bytes.len().min(usize::from(piece) + 1).min(vacant.len());
        vacant[..count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        reception.filled(count);
        loop {
            let Ok(first) = reception.first() else { return };
            let Some((found, content)) = first else { break };
            let mut version = None;
            if agreed {
                read(found.kind, content);
            } else {
                match terms.judge(Role::Accepted, &found, content) {
                    Ok(Greeting::Hello { peer, version: spoken, .. }) => {
                        assert!(peer != terms.node && peer.0 < terms.nodes, "{peer} was let in");
                        version = Some(spoken);
                    }
                    Ok(Greeting::Refused(_)) | Err(_) => return,
                }
            }
            reception.consume(&found);
            if let Some(version) = version {
                agreed = true;
                reception.agreed(version, LONGEST, 0);
                assert!(reception.vacant().len() <= HEADER + LONGEST.max(CONTROL));
            }
        }
        if count == 0 {
            // With no room left, a frame would have been found whole or refused.
            assert!(bytes.is_empty(), "{} bytes find no room", bytes.len());
            let _ = reception.end();
            return;
        }
    }
}

/// Reads a body as what its frame says it is.
fn read(kind: Kind, content: &[u8]) {
    match kind {
        Kind::Hello => drop(crate::hello::Hello::read(content)),
        Kind::Refuse => drop((Refusal::read(content), Refusal::newest(content))),
        Kind::Book => drop(book::read(content)),
        Kind::Neighbours => drop(crate::endpoint::read_neighbours(content)),
        Kind::Data | Kind::Ping | Kind::Pong | Kind::Bye => {}
    }
}
