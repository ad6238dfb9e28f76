//! An opened adapter: its queue, its compiled shaders and whether it is still there.

use crate::adapter::{self, Adapter, Choice};
use crate::error::WgpuError;
use crate::kernel::{Access, COMMON, Kernel};
use crate::options::{Options, Tuning};
use crate::tuning::{Class, Clock, Tuned, Variant};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// An opened adapter, shared by any number of [`Wgpu`](crate::Wgpu) queues; clones are the same device.
#[derive(Clone, Debug)]
pub struct Device {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    raw: wgpu::Device,
    queue: wgpu::Queue,
    adapter: Adapter,
    pipelines: Mutex<BTreeMap<&'static str, Arc<Pipeline>>>,
    fault: Arc<Mutex<Option<WgpuError>>>,
    next_buffer: AtomicU64,
    /// Which shaders compute products, and what a user should know of that; made last of all.
    products: OnceLock<Tuned>,
    /// Whether large eigenproblems are solved on the host.
    host_eigen: bool,
    /// Whether patches and the operands of statistics are kept in half precision.
    half: bool,
}

/// A compiled shader.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

impl Device {
    /// Opens an adapter, everything else by default: see [`Options`].
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(choice: &Choice) -> Result<Self, WgpuError> {
        Self::open_with(&Options { adapter: choice.clone(), ..Options::default() })
    }

    /// Opens an adapter. Takes some milliseconds, and seconds where products are measured; shaders are compiled when they
    /// are first needed.
    ///
    /// # Errors
    /// If there is no such adapter, its driver refuses, or it lacks half precision that is asked for.
    ///
    /// # Panics
    /// If less may be bound than [`Options::LEAST_BINDING`].
    pub fn open_with(options: &Options) -> Result<Self, WgpuError> {
        let found = adapter::find(&options.adapter)?;
        let mut adapter = adapter::describe(&found);
        let mut limits = found.limits();
        if let Some(bytes) = options.binding_bytes {
            assert!(bytes >= Options::LEAST_BINDING, "{bytes} bytes bind less than {}", Options::LEAST_BINDING);
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
            adapter.binding_bytes = limits.max_storage_buffer_binding_size;
        }
        // Bindings begin at multiples of 256 bytes.
        adapter.binding_bytes &= !255;
        let half = options.half_on(&adapter)?;
        let is_timed = adapter.has_timestamps && matches!(options.tuning, Tuning::Measured { .. });
        let mut required_features = wgpu::Features::empty();
        required_features.set(wgpu::Features::SHADER_F16, half);
        required_features.set(wgpu::Features::TIMESTAMP_QUERY, is_timed);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("kronfleet"),
            required_limits: limits,
            required_features,
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (raw, queue) = pollster::block_on(found.request_device(&descriptor))
            .map_err(|error| WgpuError::Refused { adapter: adapter.name.clone(), reason: error.to_string() })?;
        let fault = Arc::new(Mutex::new(None));
        let first = Arc::clone(&fault);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep(&first, WgpuError::Command { reason: error.to_string() });
        }));
        let lost = Arc::clone(&fault);
        raw.set_device_lost_callback(move |reason, message| {
            let reason = if message.is_empty() { format!("{reason:?}") } else { message };
            // What else went wrong did so because of this.
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(WgpuError::Lost { reason });
        });
        let host_eigen = options.host_eigen.unwrap_or(!adapter.is_gpu);
        let shared = Shared {
            raw,
            queue,
            adapter,
            pipelines: Mutex::default(),
            fault,
            next_buffer: AtomicU64::new(0),
            products: OnceLock::new(),
            host_eigen,
            half,
        };
        let device = Self { shared: Arc::new(shared) };
        let products = Tuned::make(&device, &options.tuning)?;
        device.shared.products.get_or_init(|| products);
        Ok(device)
    }

    /// What a user should know: that what was measured of products could not be read or kept. Nothing if all is well.
    pub fn warning(&self) -> Option<&str> {
        self.shared.products.get().and_then(|tuned| tuned.warning.as_deref())
    }

    /// What products were timed by when their shaders were chosen; none where they were not timed.
    pub fn clock(&self) -> Option<Clock> {
        self.shared.products.get().and_then(|tuned| tuned.clock)
    }

    /// Which shader computes which products.
    pub fn products(&self) -> Vec<(Class, Variant)> {
        self.shared.products.get().map_or_else(Vec::new, |tuned| tuned.choices.list().collect())
    }

    /// The shader for products of this class.
    ///
    /// # Panics
    /// While products are being measured.
    pub(crate) fn product(&self, class: Class) -> Variant {
        let tuned = self.shared.products.get().expect("while products are measured, who measures says which");
        tuned.choices.variant(class)
    }

    /// What the adapter says of itself.
    pub fn adapter(&self) -> &Adapter {
        &self.shared.adapter
    }

    /// Gives the device up: everything asked of it from now on fails as if it had been unplugged.
    pub fn destroy(&self) {
        self.shared.raw.destroy();
        // The driver says so only once somebody waits for it.
        keep(&self.shared.fault, WgpuError::Lost { reason: "it was given up".to_owned() });
    }

    /// Whether patches and the operands of symmetric products are kept in half precision.
    pub fn half(&self) -> bool {
        self.shared.half
    }

    pub(crate) fn host_eigen(&self) -> bool {
        self.shared.host_eigen
    }

    pub(crate) fn raw(&self) -> &wgpu::Device {
        &self.shared.raw
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// Whether the device still does what it is told.
    pub(crate) fn check(&self) -> Result<(), WgpuError> {
        match &*self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    /// A number for a new buffer.
    pub(crate) fn buffer_id(&self) -> u64 {
        self.shared.next_buffer.fetch_add(1, Ordering::Relaxed)
    }

    /// New memory, zeros.
    pub(crate) fn memory(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, WgpuError> {
        self.check()?;
        if bytes > self.shared.adapter.buffer_bytes {
            return Err(WgpuError::OutOfMemory { bytes });
        }
        let scope = self.raw().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation: false };
        let buffer = self.raw().create_buffer(&descriptor);
        match pollster::block_on(scope.pop()) {
            Some(_) => Err(WgpuError::OutOfMemory { bytes }),
            None => Ok(buffer),
        }
    }

    /// The shader, compiled the first time.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Arc<Pipeline> {
        let mut pipelines = self.shared.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = pipelines.entry(kernel.name).or_insert_with(|| Arc::new(self.compile(kernel)));
        Arc::clone(compiled)
    }

    fn compile(&self, kernel: &Kernel) -> Pipeline {
        let raw = self.raw();
        let begin = if kernel.half { "enable f16;\n" } else { "" };
        let source = [&[begin, COMMON], kernel.source].concat().concat();
        let module = raw.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(kernel.name),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let binding = |binding: u32, access: Access, has_dynamic_offset: bool| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: access == Access::Read },
                has_dynamic_offset,
                min_binding_size: None,
            },
            count: None,
        };
        let mut entries = vec![binding(0, Access::Read, true)];
        entries.extend((1..).zip(kernel.bindings).map(|(number, &access)| binding(number, access, false)));
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries };
        let layout = raw.create_bind_group_layout(&descriptor);
        let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: None,
            // Every shader writes what it reads.
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        Pipeline { raw: pipeline, layout }
    }
}

/// The first fault tells most.
fn keep(fault: &Mutex<Option<WgpuError>>, error: WgpuError) {
    fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}
