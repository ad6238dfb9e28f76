//! Who is not of the run does not get in, whatever he shows.

use crate::fleet::{Fleet, PATIENCE, RUN, Security, identity, meet, seed, until};
use crate::proxy::Proxy;
use kronfleet_core::transport::{NodeId, Transport};
use kronfleet_tcp::certificates::Authority;
use kronfleet_tcp::hello::Refusal;
use kronfleet_tcp::incident::Closure;
use kronfleet_tcp::tls::{self, Identity, TlsError};
use kronfleet_tcp::{Options, TcpEndpoint};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Waits until the first end has closed a connection, and the second too, if it is there; nobody got in.
#[track_caller]
fn refused(ends: &mut [&mut TcpEndpoint]) -> Vec<Closure> {
    let mut found: Vec<Option<Closure>> = vec![None; ends.len()];
    until("a connection is refused", ends, |ends, _| {
        for (end, found) in ends.iter_mut().zip(&mut found) {
            *found = found.take().or_else(|| end.next_incident().map(|incident| incident.closure));
        }
        found.iter().all(Option::is_some)
    });
    for end in ends {
        assert_eq!(end.counters().established, 0, "{} let somebody in", end.local());
    }
    found.into_iter().flatten().collect()
}

/// The words of TLS for what it refuses at the first end.
#[track_caller]
fn refused_by_tls(ends: &mut [&mut TcpEndpoint]) -> String {
    match refused(ends).swap_remove(0) {
        Closure::Tls(words) => words,
        other => panic!("refused, but not by TLS: {other:?}"),
    }
}

/// Authorities of one run have the same name and different keys.
#[track_caller]
fn assert_foreign(words: &str) {
    assert!(words.contains("UnknownIssuer") || words.contains("BadSignature"), "{words}");
}

#[test]
fn a_stranger_without_tls_is_refused() {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Tls).options(0, &[])).unwrap();
    let plain = Fleet::new(Security::Plain).options(1, &[seed(&end)]);
    let mut stranger = TcpEndpoint::open(plain).unwrap();
    refused_by_tls(&mut [&mut end, &mut stranger]);
}

#[test]
fn a_certificate_of_another_authority_is_refused_at_both_ends() {
    let mut end = TcpEndpoint::open(Fleet::new(Security::Tls).options(0, &[])).unwrap();
    // The same run and names, but an authority of its own.
    let mut stranger = TcpEndpoint::open(Fleet::new(Security::Tls).options(1, &[seed(&end)])).unwrap();
    assert_foreign(&refused_by_tls(&mut [&mut stranger, &mut end]));
}

#[test]
fn a_foreign_dialler_is_refused_even_if_he_trusts_the_run() {
    let fleet = Fleet::new(Security::Tls);
    let mut end = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let run = fleet.authority.as_ref().unwrap();
    let foreign = Authority::new(RUN, Duration::from_secs(3600)).unwrap();
    let foreign = identity(run.certificate(), &foreign.sign(NodeId(1)).unwrap(), NodeId(1));
    let options = Options { identity: Some(foreign), ..fleet.options(1, &[seed(&end)]) };
    let mut stranger = TcpEndpoint::open(options).unwrap();
    assert_foreign(&refused_by_tls(&mut [&mut end, &mut stranger]));
}

#[test]
fn an_expired_certificate_is_refused() {
    let fleet = Fleet::new(Security::Tls);
    let mut end = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let run = fleet.authority.as_ref().unwrap();
    let hour = Duration::from_secs(3600);
    let past = SystemTime::now() - 3 * hour..SystemTime::now() - 2 * hour;
    let expired = identity(run.certificate(), &run.sign_valid(NodeId(1), past).unwrap(), NodeId(1));
    let options = Options { identity: Some(expired), ..fleet.options(1, &[seed(&end)]) };
    let mut late = TcpEndpoint::open(options).unwrap();
    let words = refused_by_tls(&mut [&mut end, &mut late]);
    assert!(words.contains("expired"), "{words}");
}

#[test]
fn nobody_passes_for_another_node() {
    let fleet = Fleet::new(Security::Tls);
    let mut end = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let run = fleet.authority.as_ref().unwrap();
    let own = identity(run.certificate(), &run.sign(NodeId(2)).unwrap(), NodeId(2));
    let options = Options { identity: Some(own), ..fleet.options(1, &[seed(&end)]) };
    let mut pretender = TcpEndpoint::open(options).unwrap();
    let closures = refused(&mut [&mut end, &mut pretender]);
    assert_eq!(closures, [Closure::Refused(Refusal::Certificate), Closure::RefusedBy(Refusal::Certificate)]);
}

#[test]
fn a_replayed_handshake_is_refused() {
    let fleet = Fleet::new(Security::Tls);
    let one = TcpEndpoint::open(fleet.options(0, &[])).unwrap();
    let proxy = Proxy::new(one.address());
    let tapped = Options { listen: None, ..fleet.options(1, &[proxy.address().to_string()]) };
    let mut ends = [one, TcpEndpoint::open(tapped).unwrap()];
    meet(&mut ends);
    let recorded = proxy.said(0);
    assert!(recorded.len() > 800, "a whole handshake and a hello were recorded: {} bytes", recorded.len());
    let [mut end, other] = ends;
    drop(other);
    until("the other has left", &mut [&mut end], |ends, _| ends[0].neighbours().count() == 0);
    while end.next_incident().is_some() {}
    let before = end.counters().established;
    let mut replayed = TcpStream::connect(end.address().unwrap()).unwrap();
    replayed.write_all(&recorded).unwrap();
    let mut closure = None;
    until("the replay is refused", &mut [&mut end], |ends, _| {
        closure = closure.take().or(ends[0].next_incident());
        closure.is_some()
    });
    let closure = closure.unwrap().closure;
    assert!(matches!(closure, Closure::Tls(_)), "{closure:?}");
    assert_eq!(end.counters().established, before);
    replayed.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = replayed.read_to_end(&mut Vec::new());
}

#[test]
fn other_machines_need_certificates_or_a_word() {
    let plain = Fleet::new(Security::Plain);
    let everywhere = Some("0.0.0.0:0".parse().unwrap());
    let exposed = Options { listen: everywhere, ..plain.options(0, &[]) };
    let error = TcpEndpoint::open(exposed.clone()).err().expect("refused");
    assert!(error.reason.contains("--insecure") && error.reason.contains("certificates"), "{error}");
    let far = plain.options(0, &["192.0.2.1:80".into()]);
    assert!(TcpEndpoint::open(far).is_err());
    assert!(TcpEndpoint::open(Options { insecure: true, ..exposed }).is_ok());
    let secured = Options { listen: everywhere, ..Fleet::new(Security::Tls).options(0, &[]) };
    assert!(TcpEndpoint::open(secured).is_ok());
}

#[test]
fn certificates_are_made_by_one_command_and_keys_stay_private() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run");
    let made = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kronfleet-tcp"));
        command.args(["certificates", "--nodes", "2", "--run", &RUN.0.to_string(), "--output"]).arg(&output);
        command.output().unwrap()
    };
    let first = made();
    assert!(first.status.success(), "{first:?}");
    assert!(!made().status.success(), "nothing is overwritten");
    assert!(!output.join("ca-key.pem").exists(), "the authority's key is not kept unless asked for");
    let end = |node: u32, seeds: &[String]| {
        let identity = Identity::load(&output, RUN, NodeId(node)).unwrap();
        let options = Options { identity: Some(identity), ..Fleet::new(Security::Plain).options(node, seeds) };
        TcpEndpoint::open(options).unwrap()
    };
    let one = end(0, &[]);
    let other = end(1, &[seed(&one)]);
    meet(&mut [one, other]);
    assert!(matches!(Identity::load(&output, RUN, NodeId(2)), Err(TlsError::File { .. })));
    let key = output.join(tls::key_file(NodeId(1)));
    std::fs::copy(output.join(tls::certificate_file(NodeId(0))), output.join(tls::certificate_file(NodeId(1))))
        .unwrap();
    assert!(matches!(Identity::load(&output, RUN, NodeId(1)), Err(TlsError::Name { .. })));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load(&output, RUN, NodeId(1)), Err(TlsError::Exposed { mode: 0o640, .. })));
    }
}
