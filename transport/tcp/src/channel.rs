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
