//! What a node's process says to the one that started it: one line of JSON each.

use anyhow::{Context, Result};
use kronfleet_core::cluster::{CertificateId, Digest};
use serde::{Deserialize, Serialize};

/// Something that happened in a node's process. What its node records stands in its [event log](crate::run::events).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Message {
    /// It hears the others and waits to be told to train.
    Joined,
    /// It made a step.
    Step {
        /// The iteration it has reached.
        iteration: u64,
        /// The mean loss of the batch; absent if it is no number.
        loss: Option<f64>,
        /// Samples trained on.
        samples: u64,
        /// Bytes its node has sent since its start.
        bytes_sent: u64,
    },
    /// Its model, at an iteration at which it is evaluated.
    Model {
        /// The iteration.
        iteration: u64,
        /// All parameters: the bits of each, so that they arrive as they are.
        parameters: Vec<u32>,
        /// All running statistics, likewise.
        running: Vec<u32>,
    },
    /// It has taken over what was committed.
    Adopted {
        /// By which commit.
        certificate: CertificateId,
        /// Of the weights that are on its device now.
        weights: Digest,
    },
    /// Its device is lost, and it goes on without it.
    Lost {
        /// The iterations behind it.
        iteration: u64,
        /// What the driver said.
        reason: String,
    },
    /// It waits for more nodes than there are.
    Waiting {
        /// For whom, in words.
        text: String,
    },
    /// Something went wrong that it can live with: somebody was refused, say.
    Warned {
        /// What, in words.
        text: String,
    },
    /// It has done all its iterations.
    Finished,
    /// A later start of its node has taken its place, and it ends.
    Superseded {
        /// Who knows of it.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Message {
    /// The line that says it, with its end.
    ///
    /// # Panics
    /// Never: all of this can be said in JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers") + "\n"
    }

    /// What a line says.
    ///
    /// # Errors
    /// If it says nothing that is known here: the message quotes its beginning.
    pub fn parse(line: &str) -> Result<Self> {
        let begin = || format!("a node's process says {:?}", line.chars().take(80).collect::<String>());
        serde_json::from_str(line).with_context(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn models_arrive_bit_by_bit(bits: Vec<u32>) {
            let message = Message::Model { iteration: 1, parameters: bits, running: vec![] };
            prop_assert_eq!(Message::parse(&message.line()).ok(), Some(message));
        }

        #[test]
        fn any_line_is_answered(line: String) {
            let _ = Message::parse(&line);
        }
    }

    #[test]
    fn one_line_each() {
        let line = Message::Step { iteration: 3, loss: Some(0.5), samples: 64, bytes_sent: 9 }.line();
        assert_eq!(line, "{\"what\":\"step\",\"iteration\":3,\"loss\":0.5,\"samples\":64,\"bytes_sent\":9}\n");
        let error = Message::parse("{}").expect_err("it says nothing").to_string();
        assert_eq!(error, "a node's process says \"{}\"");
    }
}
