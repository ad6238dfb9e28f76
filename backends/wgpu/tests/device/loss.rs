//! Devices that are not there, or no longer.

use kronfleet_core::backend::Backend;
use kronfleet_core::error::{Error, ErrorKind};
use kronfleet_wgpu::{Choice, Device, Options, Wgpu, WgpuError};

fn open(name: String) -> Result<Device, WgpuError> {
    Device::open_with(&Options { adapter: Choice::Named(name), ..Options::fixed() })
}

pub(crate) fn adapters_have_names(device: &Device) {
    let name = device.adapter().name.to_uppercase();
    let same = open(name).expect("found by its name, letters' case aside");
    assert_eq!(same.adapter().name, device.adapter().name);
    let error = open("no such thing".into()).expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&device.adapter().name), "{error} names what there is");
}

/// Every call that can notice says that the device is lost; none panics, none waits for ever.
pub(crate) fn a_lost_device_says_so(device: &Device) {
    let name = device.adapter().name.clone();
    let device = open(name).expect("once more");
    let mut backend = Wgpu::new(&device).expect("a device");
    let mut buffer = backend.allocate(16).expect("memory");
    backend.upload(&[1.0; 16], &mut buffer, 0).expect("a device");
    let ticket = backend.download(&buffer, 0..16).expect("a device");
    device.destroy();
    let lost = |what: &str, outcome: Result<(), WgpuError>| match outcome {
        Err(error) if error.kind() == ErrorKind::DeviceLost => {}
        Err(error) => panic!("{what} fails with {:?}: {error}", error.kind()),
        Ok(()) => panic!("{what} succeeds on a device that is gone"),
    };
    lost("finish", backend.finish(ticket, &mut [0.0; 16]));
    lost("sync", backend.sync());
    lost("allocate", backend.allocate(16).map(drop));
    lost("fetch", backend.fetch(&buffer, 0..16).map(drop));
    lost("a new queue", Wgpu::new(&device).map(drop));
}

pub(crate) fn devices_are_lost_alone(device: &Device) {
    let mut backend = Wgpu::new(device).expect("a device");
    let mut buffer = backend.allocate(4).expect("memory");
    let other = open(device.adapter().name.clone()).expect("once more");
    other.destroy();
    backend.upload(&[1.0, 2.0, 3.0, 4.0], &mut buffer, 0).expect("a device");
    assert_eq!(backend.fetch(&buffer, 0..4).expect("a device"), [1.0, 2.0, 3.0, 4.0]);
}
