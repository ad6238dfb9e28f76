//! What a node's libraries warn of, on its way to whoever watches the run.

use super::message::Message;
use std::io::{self, Write};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use tracing::Level;

/// Has all warnings of this process told to the one that started it: who was refused and why, say.
///
/// They stop when nobody else holds `messages`. A program that logs already goes on as it does.
pub(super) fn warn_by(messages: &Arc<SyncSender<Message>>) {
    let messages = Arc::downgrade(messages);
    let told = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_writer(move || Warning { messages: Weak::clone(&messages), text: Vec::new() })
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .without_time()
        .finish();
    // Another subscriber is there: it was asked for.
    let _ = tracing::subscriber::set_global_default(told);
}

/// One warning, told when it is complete.
struct Warning {
    messages: Weak<SyncSender<Message>>,
    text: Vec<u8>,
}

impl Write for Warning {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Warning {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text).trim().to_owned();
        if let Some(messages) = self.messages.upgrade().filter(|_| !text.is_empty()) {
            // Nobody listens any more: this process is about to end.
            let _ = messages.send(Message::Warned { text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn a_warning_is_told_as_one_message_and_holds_nobody_up_afterwards() {
        let (messages, told) = sync_channel(2);
        let messages = Arc::new(messages);
        warn_by(&messages);
        tracing::warn!(node = 3, "cannot do that");
        tracing::info!("nobody has to know");
        drop(messages);
        tracing::warn!("too late");
        let told: Vec<_> = told.iter().collect();
        assert_eq!(told, [Message::Warned { text: "cannot do that node=3".into() }]);
    }
}
