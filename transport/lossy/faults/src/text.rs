//! How times, nodes and links stand in a schedule's file.

use kronfleet_core::time::{Duration, Instant};
use kronfleet_core::transport::NodeId;
use kronfleet_lossy::fault::{parse_duration, write_duration};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use std::borrow::Cow;
use std::collections::BTreeSet;

fn read_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is no time: write a number and a unit, such as 250ms or 1.5s"))
}

fn read_node(text: &str) -> Result<NodeId, String> {
    let number = text.strip_prefix('n').and_then(|number| number.parse().ok());
    number.map(NodeId).ok_or_else(|| format!("`{text}` is no node: write n0, n1 and so on"))
}

/// A span of time: `"250ms"`.
pub(crate) mod span {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&write_duration(*span))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        read_span(&Cow::<str>::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A compressor: `"top:0.1"`.
pub(crate) mod code {
    use super::*;
    use kronfleet_core::compress::Code;

    pub(crate) fn serialize<S: Serializer>(code: &Code, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(code)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Code, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A time since the run began: `"1.5s"`.
pub(crate) mod at {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(at: &Instant, to: S) -> Result<S::Ok, S::Error> {
        span::serialize(&at.since(Instant::ORIGIN), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Instant, D::Error> {
        Ok(Instant::ORIGIN + span::deserialize(from)?)
    }
}

/// A time since the run began, or never.
pub(crate) mod maybe_at {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(at: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(instant) => at::serialize(instant, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Instant>, D::Error> {
        at::deserialize(from).map(Some)
    }
}

/// A span of time, or none.
pub(crate) mod maybe_span {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(duration) => span::serialize(duration, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        span::deserialize(from).map(Some)
    }
}

/// A node: `"n1"`.
pub(crate) mod node {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(node: &NodeId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(node)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
        read_node(&Cow::<str>::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Some nodes: `["n0", "n2"]`.
pub(crate) mod nodes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(nodes: &BTreeSet<NodeId>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(nodes.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<NodeId>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names.iter().map(|name| read_node(name)).collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}

/// How links behave, in the text form of [`LinkOptions`](kronfleet_lossy::link::LinkOptions).
pub(crate) mod link {
    use super::*;
    use kronfleet_lossy::link::LinkOptions;

    pub(crate) fn serialize<S: Serializer>(link: &LinkOptions, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(link)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LinkOptions, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
