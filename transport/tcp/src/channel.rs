//! Bytes over a socket, in the clear or under TLS; nothing here waits.

use crate::buffer::Buffer;
use rustls::Connection as Session;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes that TLS may hold back, encrypted and unsent.
const ENCRYPTED: usize = 64 << 10;

/// How bytes travel.
#[derive(Debug)]
pub(crate) enum Channel {
    Plain,
    Tls(Box<Session>),
}

/// Why a channel cannot go on.
#[derive(Debug)]
pub(crate) enum ChannelError {
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What an attempt to read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// This many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
}

impl Channel {
    pub(crate) fn tls(session: impl Into<Session>) -> Self {
        let mut session = session.into();
        session.set_buffer_limit(Some(ENCRYPTED));
        Self::Tls(Box::new(session))
    }

    /// Whether TLS itself has something to say.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(session) => session.wants_write(),
        }
    }

    /// The other end's certificate, if there is one.
    pub(crate) fn certificate(&self) -> Option<&rustls::pki_types::CertificateDer<'static>> {
        match self {
            Self::Plain => None,
            Self::Tls(session) => session.peer_certificates()?.first(),
        }
    }

    /// Reads what is there into `target`.
    pub(crate) fn read(
        &mut self,
        socket: &mut (impl Read + Write),
        target: &mut [u8],
    ) -> Result<Received, ChannelError> {
        let Self::Tls(session) = self else {
            return match again(|| socket.read(target)) {
                Ok(0) => Ok(Received::End),
                Ok(count) => Ok(Received::Bytes(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(error) => Err(error.into()),
            };
        };
        loop {
            match session.reader().read(target) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => return Ok(Received::Bytes(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The connection ended without a farewell of TLS. Frames are whole or discarded, so cutting short is
                // noticed above.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Received::End),
                Err(error) => return Err(error.into()),
            }
            match again(|| session.read_tls(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
            }
            if let Err(error) = session.process_new_packets() {
                // Who closes a connection that another has overtaken does so in the midst of greetings, too.
                if error == rustls::Error::AlertReceived(rustls::AlertDescription::CloseNotify) {
                    return Ok(Received::End);
                }
                // The alert tells the other end why; whether it arrives does not matter any more.
                let _ = session.write_tls(socket);
                return Err(ChannelError::Tls(error));
            }
        }
    }

    /// Writes what it can of `output`; answers whether everything is gone.
    pub(crate) fn flush(&mut self, socket: &mut impl Write, output: &mut Buffer) -> Result<bool, ChannelError> {
        let Self::Tls(session) = self else {
            while !output.is_empty() {
                match again(|| socket.write(output.filled())) {
                    Ok(count) => output.consume(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(true);
        };
        loop {
            if !session.is_handshaking() && !output.is_empty() {
                let taken = session.writer().write(output.filled())?;
                output.consume(taken);
            }
            if !session.wants_write() {
                return Ok(output.is_empty());
            }
            match again(|| session.write_tls(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says that nothing more is coming.
    pub(crate) fn farewell(&mut self, socket: &mut impl Write) {
        if let Self::Tls(session) = self {
            session.send_close_notify();
            let _ = session.write_tls(socket);
        }
    }
}

/// Repeats a call that a signal interrupted.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Authority;
    use crate::tls::Identity;
    use kronfleet_core::cluster::RunId;
    use kronfleet_core::transport::NodeId;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use std::time::Duration;

    /// One end of a line in memory: what comes, and what goes.
    struct Socket<'a> {
        comes: &'a mut Vec<u8>,
        goes: &'a mut Vec<u8>,
        /// The other end is gone: after what comes there is nothing.
        is_over: bool,
    }

    impl Read for Socket<'_> {
        fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
            if self.comes.is_empty() && !self.is_over {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = target.len().min(self.comes.len());
            target[..count].copy_from_slice(&self.comes[..count]);
            self.comes.drain(..count);
            Ok(count)
        }
    }

    impl Write for Socket<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.goes.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line as one end sees it, which dials or is dialled; `told` is what each has been told and not read.
    fn socket(told: &mut [Vec<u8>; 2], end: usize, is_over: bool) -> Socket<'_> {
        let [dialler, dialled] = told;
        let (comes, goes) = if end == 0 { (dialler, dialled) } else { (dialled, dialler) };
        Socket { comes, goes, is_over }
    }

    /// What the other end of greetings makes of it that the dialling one, or the one that was dialled, leaves after so many
    /// messages.
    fn outcome(identities: &[Identity; 2], leaver: usize, messages: usize) -> Result<Received, ChannelError> {
        let mut ends = [identities[0].dial().unwrap(), identities[1].accept().unwrap()];
        let mut told = [vec![], vec![]];
        for message in 0..messages {
            let at = message % 2;
            assert_eq!(ends[at].read(&mut socket(&mut told, at, false), &mut [0; 64])?, Received::Nothing);
            assert!(ends[at].flush(&mut socket(&mut told, at, false), &mut Buffer::default())?);
        }
        ends[leaver].farewell(&mut socket(&mut told, leaver, false));
        ends[1 - leaver].read(&mut socket(&mut told, 1 - leaver, true), &mut [0; 64])
    }

    #[test]
    fn whoever_leaves_in_the_midst_of_greetings_has_left_and_shows_no_wrong_certificate() {
        let authority = Authority::new(RunId(42), Duration::from_secs(3600)).unwrap();
        let identities = [0, 1].map(|node| {
            let signed = authority.sign(NodeId(node)).unwrap();
            let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
            let (trusted, own) = (certificate(authority.certificate()), certificate(&signed.certificate));
            Identity::new(trusted, own, key, RunId(42), NodeId(node)).unwrap()
        });
        for leaver in 0..2 {
            for messages in 0..5 {
                let found = outcome(&identities, leaver, messages);
                assert!(matches!(found, Ok(Received::End)), "end {leaver} after {messages} messages: {found:?}");
            }
        }
    }
}
