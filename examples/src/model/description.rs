//! Networks as TOML files; `docs/models.md` documents the format with examples.
//!
//! Every key is read through `Keys`, which remembers what it was asked for: an unknown key is an error that lists the
//! known ones, without a second list to keep true.

use super::{Model, ModelError};
use kronfleet_core::backend::Extent;
use kronfleet_core::network::{Network, Shape, ShortcutSpec, Spec};
use kronfleet_nalgebra::Nalgebra;
use toml::{Table, Value};

/// Numbers above this are mistakes, and their products might overflow.
const LARGEST: usize = 1 << 16;

/// Understands the text of a file; `name` is what the model is called unless the file says.
///
/// # Errors
/// If it is no TOML, a key is unknown, missing or of the wrong kind. Whether the layers fit each other is found when the
/// network is built.
pub fn parse(text: &str, name: &str) -> Result<Model, ModelError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| ModelError {
        place: "TOML".into(),
        problem: error.to_string().trim_end().to_owned(),
        remedy: "docs/models.md shows the format".into(),
    })?;
    let mut keys = Keys::new("the file".into(), &table);
    let name = keys.text("name")?.unwrap_or(name).to_owned();
    let input = input(&mut keys)?;
    let layers = sequence(&mut keys, "layer", "layer ", "")?;
    keys.finish()?;
    Ok(Model { name, input, layers })
}

/// Whether arbitrary bytes describe a network whose layers fit each other.
///
/// # Errors
/// With the first problem, in words.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let model = parse(text, "model").map_err(|error| error.to_string())?;
    Network::<Nalgebra<f32>>::check(model.input, &model.layers).map_err(|error| error.to_string())
}

fn input(keys: &mut Keys<'_>) -> Result<Extent, ModelError> {
    let wanted = "[channels, height, width] or [features]";
    let Some(value) = keys.value("input") else { return Err(keys.missing("input", wanted)) };
    let numbers: Option<Vec<usize>> = value.as_array().and_then(|items| items.iter().map(number).collect());
    match numbers.as_deref() {
        Some(&[channels, height, width]) => Ok(Extent::new(channels, height, width)),
        Some(&[features]) => Ok(Extent::flat(features)),
        _ => Err(keys.wrong("input", value, wanted)),
    }
}

/// The layers under `key`; `place` names them in messages, `prefix` their parameters.
fn sequence(keys: &mut Keys<'_>, key: &'static str, place: &str, prefix: &str) -> Result<Vec<Spec>, ModelError> {
    let wanted = format!("one [[{key}]] table per layer");
    let Some(value) = keys.value(key) else { return Err(keys.missing(key, &wanted)) };
    let Some(items) = value.as_array() else { return Err(keys.wrong(key, value, &wanted)) };
    let layer = |(index, item): (usize, &Value)| {
        let Some(table) = item.as_table() else { return Err(keys.wrong(key, item, &wanted)) };
        layer(table, format!("{place}{}", index + 1), format!("{prefix}{index}"))
    };
    items.iter().enumerate().map(layer).collect()
}

const TYPES: &str = "dense, convolution, batch_norm, evo_norm, relu, tanh, max_pool, mean_pool, global_mean_pool, \
                     flatten, residual";

fn layer(table: &Table, place: String, default_name: String) -> Result<Spec, ModelError> {
    let place = match table.get("name").and_then(Value::as_str) {
        Some(name) => format!("{place} ({name})"),
        None => place,
    };
    let mut keys = Keys::new(place, table);
    let Some(kind) = keys.text("type")? else { return Err(keys.missing("type", TYPES)) };
    let spec = match kind {
        "dense" | "linear" => Spec::Dense {
            name: keys.name(default_name)?,
            outputs: keys.count("outputs")?,
            bias: keys.flag("bias", true)?,
        },
        "convolution" => Spec::Convolution {
            name: keys.name(default_name)?,
            outputs: keys.count("outputs")?,
            shape: keys.windows(Some([1, 1]), true)?,
            groups: keys.whole("groups", Some(1))?,
            bias: keys.flag("bias", true)?,
        },
        "batch_norm" => Spec::BatchNorm {
            name: keys.name(default_name)?,
            epsilon: keys.real("epsilon", 1e-5)?,
            momentum: keys.real("momentum", 0.1)?,
        },
        "evo_norm" => Spec::EvoNorm {
            name: keys.name(default_name)?,
            groups: keys.count("groups")?,
            epsilon: keys.real("epsilon", 1e-5)?,
        },
        "relu" => Spec::Relu,
        "tanh" => Spec::Tanh,
        "max_pool" => Spec::MaxPool(keys.windows(None, false)?),
        "mean_pool" | "avg_pool" => Spec::MeanPool(keys.windows(None, false)?),
        "global_mean_pool" | "global_avg_pool" => Spec::GlobalMeanPool,
        "flatten" => Spec::Flatten,
        "residual" => residual(&mut keys, default_name)?,
        _ => return Err(keys.wrong("type", &table["type"], &format!("one of {TYPES}"))),
    };
    // Layers without parameters may carry a name for the reader.
    keys.text("name")?;
    keys.finish()?;
    Ok(spec)
}

fn residual(keys: &mut Keys<'_>, default_name: String) -> Result<Spec, ModelError> {
    let name = keys.name(default_name)?;
    let inside = format!("{} › ", keys.place);
    let body = sequence(keys, "body", &format!("{inside}body "), "")?;
    let shortcut = match keys.text("shortcut")? {
        None | Some("identity") => ShortcutSpec::Identity,
        Some("subsample") => ShortcutSpec::Subsample { stride: keys.count("stride")? },
        Some("projection") => {
            ShortcutSpec::Projection(sequence(keys, "projection", &format!("{inside}projection "), "shortcut.")?)
        }
        Some(other) => {
            let value = Value::String(other.to_owned());
            return Err(keys.wrong("shortcut", &value, "identity, subsample or projection"));
        }
    };
    Ok(Spec::Residual { name, body, shortcut })
}

/// A whole number from 0 to [`LARGEST`].
fn number(value: &Value) -> Option<usize> {
    value.as_integer().and_then(|number| usize::try_from(number).ok()).filter(|&number| number <= LARGEST)
}

/// A table whose keys are all accounted for.
struct Keys<'a> {
    place: String,
    table: &'a Table,
    known: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    fn new(place: String, table: &'a Table) -> Self {
        Self { place, table, known: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key)
    }

    fn missing(&self, key: &str, wanted: &str) -> ModelError {
        ModelError {
            place: self.place.clone(),
            problem: format!("the key `{key}` is missing"),
            remedy: format!("add {key} = {wanted}"),
        }
    }

    fn wrong(&self, key: &str, found: &Value, wanted: &str) -> ModelError {
        ModelError {
            place: self.place.clone(),
            problem: format!("{key} = {found}"),
            remedy: format!("expected {wanted}"),
        }
    }

    fn text(&mut self, key: &'static str) -> Result<Option<&'a str>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    fn name(&mut self, default: String) -> Result<String, ModelError> {
        Ok(self.text("name")?.map_or(default, str::to_owned))
    }

    fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, ModelError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn real(&mut self, key: &'static str, default: f64) -> Result<f64, ModelError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Float(number)) if number.is_finite() && *number >= 0.0 => Ok(*number),
            Some(Value::Integer(number)) if *number >= 0 => Ok(*number as f64),
            Some(other) => Err(self.wrong(key, other, "a number of at least 0")),
        }
    }

    fn whole(&mut self, key: &'static str, default: Option<usize>) -> Result<usize, ModelError> {
        let wanted = format!("a whole number from 0 to {LARGEST}");
        match (self.value(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, &wanted)),
            (Some(value), _) => number(value).ok_or_else(|| self.wrong(key, value, &wanted)),
        }
    }

    /// A whole number of at least 1 that has to be there.
    fn count(&mut self, key: &'static str) -> Result<usize, ModelError> {
        match self.whole(key, None)? {
            0 => Err(self.wrong(key, &Value::Integer(0), "at least 1")),
            count => Ok(count),
        }
    }

    /// One number for both axes, or [vertical, horizontal].
    fn pair(&mut self, key: &'static str, default: Option<[usize; 2]>) -> Result<[usize; 2], ModelError> {
        let wanted = format!("a whole number up to {LARGEST}, or two: [vertical, horizontal]");
        let Some(value) = self.value(key) else { return default.ok_or_else(|| self.missing(key, &wanted)) };
        let found = match value.as_array().map(Vec::as_slice) {
            None => number(value).map(|number| [number; 2]),
            Some([vertical, horizontal]) => number(vertical).zip(number(horizontal)).map(<[usize; 2]>::from),
            Some(_) => None,
        };
        found.ok_or_else(|| self.wrong(key, value, &wanted))
    }

    /// `stride: None` means that of the kernel, as PyTorch's poolings have it.
    fn windows(&mut self, stride: Option<[usize; 2]>, dilated: bool) -> Result<Shape, ModelError> {
        let kernel = self.pair("kernel", None)?;
        let stride = self.pair("stride", Some(stride.unwrap_or(kernel)))?;
        let padding = self.pair("padding", Some([0, 0]))?;
        let dilation = if dilated { self.pair("dilation", Some([1, 1]))? } else { [1, 1] };
        Ok(Shape { kernel, stride, padding, dilation })
    }

    fn finish(self) -> Result<(), ModelError> {
        match self.table.keys().find(|key| !self.known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ModelError {
                place: self.place,
                problem: format!("unknown key `{key}`"),
                remedy: format!("known here: {}", self.known.join(", ")),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "test").expect_err("it is wrong").to_string()
    }

    #[test]
    fn defaults_are_those_of_pytorch() {
        let text = "input = [3, 8, 6]\n[[layer]]\ntype = 'convolution'\noutputs = 4\nkernel = [3, 2]\n\
                    [[layer]]\ntype = 'relu'\n[[layer]]\ntype = 'max_pool'\nkernel = 2\n\
                    [[layer]]\ntype = 'batch_norm'\n[[layer]]\ntype = 'dense'\nname = 'out'\noutputs = 2\n";
        let model = parse(text, "test").expect("it is right");
        assert_eq!(model.input, Extent::new(3, 8, 6));
        let shape = Shape { kernel: [3, 2], stride: [1, 1], padding: [0, 0], dilation: [1, 1] };
        let expected = vec![
            Spec::convolution("0", 4, shape),
            Spec::Relu,
            Spec::MaxPool(Shape::square(2, 2, 0)),
            Spec::batch_norm("3"),
            Spec::dense("out", 2),
        ];
        assert_eq!(model.layers, expected);
    }

    #[test]
    fn errors_name_the_layer_and_the_known_keys() {
        let message = error("input = [4]\n[[layer]]\ntype = 'dense'\nname = 'fc'\noutputs = 2\nbiass = true");
        assert_eq!(message, "layer 1 (fc): unknown key `biass`; known here: type, name, outputs, bias");
        let nested = "input = [4]\n[[layer]]\ntype = 'residual'\n[[layer.body]]\ntype = 'dense'\noutputs = 'x'";
        assert!(error(nested).starts_with("layer 1 › body 1: outputs = \"x\"; expected a whole number"));
        assert!(error("input = [4]\n[[layer]]\ntype = 'softmax'").contains("one of dense, convolution"));
        assert!(error("input = [4]\nlayer = 3").contains("one [[layer]] table per layer"));
        assert!(error("input = [4, 2]\nlayer = []").contains("[channels, height, width] or [features]"));
        assert!(error("[[layer]]\ntype = 'relu'").contains("`input` is missing"));
        assert!(error("input = [").starts_with("TOML: "));
        assert!(error("input = [4]\n[[layer]]\ntype = 'max_pool'\nkernel = -1").contains("kernel = -1"));
    }

    #[test]
    fn shipped_files_describe_networks() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let files: Vec<_> =
            std::fs::read_dir(folder).expect("the folder").map(|file| file.expect("a file").path()).collect();
        assert!(files.len() >= 4);
        for file in files {
            let bytes = std::fs::read(&file).expect("a readable file");
            assert_eq!(check(&bytes), Ok(()), "{}", file.display());
        }
    }

    #[test]
    fn absurd_sizes_are_refused_before_they_overflow() {
        let layer = "[[layer]]\ntype = 'convolution'\noutputs = 65536\nkernel = 65536\npadding = 65536\n";
        let text = format!("input = [65536, 65536, 65536]\n{}", layer.repeat(3));
        assert!(check(text.as_bytes()).expect_err("too large").contains("too many"));
        assert!(check(b"input = [3, 0, 3]\nlayer = []").expect_err("empty").contains("3×0×3 are empty"));
        assert!(check(b"input = [70000]\nlayer = []").expect_err("too large").contains("input = [70000]"));
    }

    #[test]
    fn shortcuts() {
        let block = |rest: &str| {
            let text =
                format!("input = [4]\n[[layer]]\ntype = 'residual'\nname = 'b'\n{rest}\n[[layer.body]]\ntype = 'relu'");
            parse(&text, "test").map(|model| model.layers[0].clone())
        };
        let with = |shortcut| Ok(Spec::residual("b", vec![Spec::Relu], shortcut));
        assert_eq!(block(""), with(ShortcutSpec::Identity));
        assert_eq!(block("shortcut = 'subsample'\nstride = 2"), with(ShortcutSpec::Subsample { stride: 2 }));
        let projection = "shortcut = 'projection'\nprojection = [{ type = 'dense', outputs = 4 }]";
        assert_eq!(block(projection), with(ShortcutSpec::Projection(vec![Spec::dense("shortcut.0", 4)])));
        assert!(block("shortcut = 'none'").expect_err("unknown").to_string().contains("identity, subsample"));
    }
}
