//! Who preconditions what: the published ways of dividing K-FAC's work, counted, measured and trained with.

mod breakdown;
mod converged;
mod dealing;
mod link;
mod measured;
mod member;
mod modelled;
mod plots;
mod rate;
mod rates;
mod shapes;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use converged::Trainings;
use dealing::Dealing;
use kronfleet_examples::report::Folder;
use kronfleet_examples::run::stop_on_signal;
use kronfleet_examples::settings::{fraction_or_one, positive};
use link::Link;
use measured::{Course, Measured};
use modelled::Counted;
use rate::Rate;
use rates::Rates;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Divide the work of one preconditioned step among members, in every published way.
///
/// Counted: operations, bytes and memory of one update (statistics, decompositions, directions); times follow from rates that
/// are measured on this machine first and from the figures of links. Measured: members as processes of this machine train on
/// random data over a transport. Without --count, --measure, --converge, --models and --members, both: the first of the five
/// large networks among 8, 16 and 64 members behind each link, the second resnet20 and resnet32 among 2 and 4 processes over
/// shared memory and over TCP at 1gbit; some minutes.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  placements
  placements --count --models resnet50 --members 64 --link 100gb
  placements --measure shm,tcp --rate 1gbit --models resnet20 --members 2,4 --batch 16
  placements --converge --data fashion-mnist --epochs 3 --output kept"
)]
struct Arguments {
    /// Count only
    #[arg(long, conflicts_with_all = ["measure", "converge"])]
    count: bool,
    /// Measure only, over these transports
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "converge")]
    measure: Vec<Medium>,
    /// Train instead, in the simulator and for equal epochs: a network under every placement, and with an owner killed now and
    /// then. What is done is kept in --output, and the same command goes on
    #[arg(long)]
    converge: bool,
    /// Networks: resnet50, resnet152, densenet201, vgg16, transformer by their shapes, or models of the trainers
    /// [default: counted all of these; measured resnet20,resnet32; trained examples/models/small_resnet.toml]
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Numbers of members [default: counted 8,16,64; measured 2,4; trained 4]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4096))]
    members: Vec<u16>,
    /// Samples of each member's batch [default: 32; measured 16; trained 64]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Counted: the links of each member
    #[arg(long, value_enum, value_delimiter = ',', default_value = "10gbe,100gb,wan")]
    link: Vec<Link>,
    /// KAISA's share of members that hold a layer's decompositions
    #[arg(long, default_value_t = 0.5, value_parser = fraction_or_one, value_name = "SHARE")]
    share: f64,
    #[command(flatten)]
    dealing: Dealing,
    /// Operations per second of products [default: measured]
    #[arg(long, value_parser = positive, value_name = "RATE")]
    products: Option<f64>,
    /// Operations per second of inversions, n³ each [default: measured]
    #[arg(long, value_parser = positive, value_name = "RATE")]
    decompositions: Option<f64>,
    /// Operations per second of eigenvectors, 9·n³ each [default: measured]
    #[arg(long, value_parser = positive, value_name = "RATE")]
    eigenvectors: Option<f64>,
    /// Measured over tcp: hold every member's line to this, in network namespaces of their own: as root, with ip and tc
    #[arg(long, value_name = "RATE", requires = "measure")]
    rate: Option<Rate>,
    /// Measured: steps between refreshes of decompositions
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    inverse_every: u64,
    /// Measured: whole periods to time, after one that is not timed
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    periods: u64,
    /// Trained: embedded (10,000 + 2,000 images of Fashion-MNIST) or fashion-mnist (all of it, where it is installed)
    #[arg(long, default_value = "embedded", value_name = "NAME")]
    data: String,
    /// Trained: passes over all samples
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    epochs: u64,
    /// Trained: the seeds
    #[arg(long, default_value = "1,2", value_delimiter = ',', value_name = "A,B")]
    seeds: Vec<u64>,
    /// Trained: steps from one death of an owner to the next
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(11..))]
    killed_every: u64,
    /// Print one line of JSON for every placement instead of tables
    #[arg(long)]
    json: bool,
    /// The folder for placements.md, files of all figures and plots [default: runs/placements-TIME]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// What a process started by this program is told
    #[arg(long, hide = true, value_name = "JSON")]
    member: Option<String>,
}

/// What members talk through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Medium {
    /// Shared memory
    Shm,
    /// TCP on this machine
    Tcp,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(place) = &arguments.member {
        return member::serve(&serde_json::from_str(place)?);
    }
    let stop = stop_on_signal()?;
    let folder = Folder::create(arguments.output.as_deref(), "placements")?;
    let text = if arguments.converge {
        arguments.converge(&folder, &stop)?
    } else {
        let rates = arguments.rates()?;
        let whole = arguments.models.is_empty() && arguments.members.is_empty();
        let (count, measure) = match (arguments.count, arguments.measure.as_slice()) {
            (false, []) if whole => {
                (true, vec![(Medium::Shm, None), (Medium::Tcp, Some("1gbit".parse().expect("a rate")))])
            }
            (_, []) => (true, Vec::new()),
            (_, media) => (false, media.iter().map(|&medium| (medium, arguments.rate)).collect()),
        };
        let mut text = String::new();
        if count {
            text += &arguments.count(rates, &folder)?;
        }
        if !measure.is_empty() {
            text += &arguments.measure(&measure, rates, &folder, &stop)?;
        }
        text
    };
    folder.write("placements.md", &text)?;
    if !arguments.json {
        println!("report: {}", folder.path().display());
    }
    Ok(())
}

fn or<T: Clone>(given: &[T], default: impl IntoIterator<Item = T>) -> Vec<T> {
    if given.is_empty() { default.into_iter().collect() } else { given.to_vec() }
}

impl Arguments {
    fn say(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn rates(&self) -> Result<Rates> {
        let given = [self.products, self.decompositions, self.eigenvectors];
        let measured = match given {
            [Some(products), Some(inversions), Some(eigenvectors)] => Rates { products, inversions, eigenvectors },
            _ => Rates::measure()?,
        };
        Ok(Rates {
            products: self.products.unwrap_or(measured.products),
            inversions: self.decompositions.unwrap_or(measured.inversions),
            eigenvectors: self.eigenvectors.unwrap_or(measured.eigenvectors),
        })
    }

    /// Counts; answers the page.
    fn count(&self, rates: Rates, folder: &Folder) -> Result<String> {
        let models = or(&self.models, shapes::NAMES.map(String::from));
        let members = or(&self.members, [8, 16, 64]);
        let batch = self.batch.unwrap_or(32);
        let mut counted = Vec::new();
        for &link in &self.link {
            for model in &models {
                for &count in &members {
                    let (batch, dealing) = (batch as usize, &self.dealing);
                    counted.push(Counted::new(model, count.into(), batch, self.share, link, rates, dealing)?);
                }
            }
        }
        if self.json {
            for line in counted.iter().flat_map(|counted| &counted.lines) {
                println!("{}", serde_json::to_string(line)?);
            }
        }
        let mut text = format!("One core: {rates}. Batches of {batch}; one update.\n\n");
        let most = usize::from(members.iter().copied().max().unwrap_or(1));
        for &link in &self.link {
            let all: Vec<&Counted> = counted.iter().filter(|counted| counted.link == link).collect();
            let widest: Vec<&Counted> = all.iter().filter(|counted| counted.members == most).copied().collect();
            let times = modelled::times(&widest);
            writeln!(
                text,
                "Seconds of an update, computation + communication, {most} members, links of {}:\n\n{times}",
                link.words()
            )?;
            let name = link.name();
            folder.write(&format!("placements-{name}.svg"), &plots::shares(&widest, link, most)?)?;
            folder.write(&format!("placements-{name}-members.svg"), &plots::over_members(&all, &models, link)?)?;
        }
        writeln!(
            text,
            "DP-KFAC against the fastest before it, how many times less:\n\n{}",
            modelled::ratios(&counted)
        )?;
        if breakdown::covers(&models, &members) {
            writeln!(text, "{}", breakdown::breakdown(Link::HundredGigabit, rates, self.share)?)?;
        }
        folder.write("counted.csv", &modelled::csv(&counted))?;
        // All of them would be too much to read in a terminal.
        let details = counted.iter().map(Counted::table).collect::<Result<Vec<_>>>()?.join("\n");
        self.say(&text);
        if let [_] = counted.as_slice() {
            self.say(&details);
        }
        Ok(text + &details)
    }

    /// Measures; answers the page.
    fn measure(
        &self,
        media: &[(Medium, Option<Rate>)],
        rates: Rates,
        folder: &Folder,
        stop: &Arc<AtomicBool>,
    ) -> Result<String> {
        if let (Some(rate), true) = (self.rate, media.iter().all(|(medium, _)| *medium != Medium::Tcp)) {
            bail!("--rate {rate}: only lines over TCP are held to a rate; add tcp to --measure, or leave out --rate");
        }
        let models = or(&self.models, ["resnet20", "resnet32"].map(String::from));
        let members = or(&self.members, [2, 4]);
        if let Some(&count) = members.iter().find(|&&count| count > 64) {
            bail!("--members {count}: 64 processes are the most that can be measured; leave out --measure to count");
        }
        let mut text = String::new();
        let mut all: Vec<(String, Vec<Measured>)> = Vec::new();
        for &(medium, rate) in media {
            let rate = rate.filter(|_| medium == Medium::Tcp);
            for &count in &members {
                let network = match rate.map(|rate| measured::network(count.into(), rate)) {
                    Some(Err(error)) => {
                        let skipped = format!(
                            "skipped: lines of {} for {count} processes over TCP: {error:#}. They take root, ip and tc \
                             (Debian: iproute2), then: placements --measure tcp --rate {}",
                            rate.expect("asked for"),
                            rate.expect("asked for")
                        );
                        self.say(&skipped);
                        writeln!(text, "{skipped}\n")?;
                        continue;
                    }
                    Some(Ok(network)) => Some(network),
                    None => None,
                };
                for model in &models {
                    let course = Course {
                        medium,
                        rate,
                        model: model.clone(),
                        members: count.into(),
                        batch: self.batch.unwrap_or(16) as usize,
                        share: self.share,
                        inverse_every: self.inverse_every,
                        periods: self.periods,
                        rates,
                    };
                    let title = course.title();
                    let lines = course.measure(network.as_ref(), |line| {
                        if self.json {
                            println!("{}", serde_json::to_string(line).expect("numbers and names"));
                        } else {
                            eprintln!("{title}, {}: {:.1} ms", line.placement, line.milliseconds);
                        }
                        !stop.load(Ordering::Relaxed)
                    })?;
                    let table = format!(
                        "{title}, batches of {}, inverses at every {}th step\n\n{}",
                        course.batch,
                        self.inverse_every,
                        measured::table(&lines)
                    );
                    self.say(&table);
                    writeln!(text, "{table}")?;
                    all.push((title, lines));
                    folder.write("measured.csv", &measured::csv(all.iter().flat_map(|(_, lines)| lines)))?;
                    folder.write("placements-measured.svg", &plots::steps(&all)?)?;
                }
            }
        }
        Ok(text)
    }

    /// Trains; answers the page.
    fn converge(&self, folder: &Folder, stop: &Arc<AtomicBool>) -> Result<String> {
        let models = or(&self.models, ["examples/models/small_resnet.toml".to_owned()]);
        let members = or(&self.members, [4]);
        let ([model], [nodes]) = (models.as_slice(), members.as_slice()) else {
            bail!("--converge trains one network among one number of members: give one of each");
        };
        let trainings = Trainings {
            model: model.clone(),
            data: self.data.clone(),
            epochs: self.epochs,
            batch: self.batch.unwrap_or(64).into(),
            nodes: (*nodes).into(),
            seeds: self.seeds.clone(),
            killed_every: self.killed_every,
        };
        let text = trainings.run(folder, stop)?;
        self.say(&text);
        Ok(text)
    }
}
