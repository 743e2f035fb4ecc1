//! Faults that an engine adds to what it sends and receives, for tests of applications.

use crate::abi::{self, Struct};
use crate::handle::trunk_conn;
use crate::instance::{Live, live, trunk_engine};
use crate::result::{Error, Result, guard, trunk_result};
use engine::{FaultConfig, Faults};
use std::ffi::c_char;
use std::net::SocketAddr;
use std::time::Duration;

/// Faults of one direction. Probabilities are per packet, from 0 to 1; all zeros is a perfect path.
/// trunk_faults_init fills in the defaults, which are that.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_faults {
    /// Size of this struct; set by trunk_faults_init.
    pub struct_size: u32,
    /// Longer packets are lost without a word; 0 = none is. 0.
    pub max_packet: u32,
    /// Lost. 0.
    pub loss: f64,
    /// Delivered twice. 0.
    pub duplicate: f64,
    /// Held back by reorder_by_ns on top of its delay, so that later ones overtake it. 0.
    pub reorder: f64,
    /// One to three bits are flipped. 0.
    pub corrupt: f64,
    /// How long a reordered packet is held back. 3 ms.
    pub reorder_by_ns: u64,
    /// Time on the way. 0.
    pub delay_ns: u64,
    /// Added to the delay, evenly spread from zero to this; packets overtake each other. 0.
    pub jitter_ns: u64,
    /// Bits a second; 0 = no limit. 0.
    pub rate: u64,
    /// Bytes that wait for the rate; more are lost. 256 KiB.
    pub queue_bytes: u64,
}

// SAFETY: `repr(C)`, starts with `struct_size`, numbers only.
unsafe impl Struct for trunk_faults {
    const NAME: &'static str = "trunk_faults";

    fn defaults() -> Self {
        let none = Faults::NONE;
        Self {
            struct_size: 0,
            max_packet: 0,
            loss: none.loss,
            duplicate: none.duplicate,
            reorder: none.reorder,
            corrupt: none.corrupt,
            reorder_by_ns: none.reorder_by.as_nanos() as u64,
            delay_ns: 0,
            jitter_ns: 0,
            rate: 0,
            queue_bytes: none.queue as u64,
        }
    }
}

impl trunk_faults {
    /// # Safety
    /// As [`abi::read`].
    unsafe fn optional(from: *const Self) -> Result<Faults> {
        // SAFETY: handed on.
        let faults = unsafe { abi::read(from) }?;
        for (value, field) in [
            (faults.loss, "loss"),
            (faults.duplicate, "duplicate"),
            (faults.reorder, "reorder"),
            (faults.corrupt, "corrupt"),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(field, "must lie in 0..=1"));
            }
        }
        Ok(Faults {
            loss: faults.loss,
            duplicate: faults.duplicate,
            reorder: faults.reorder,
            reorder_by: Duration::from_nanos(faults.reorder_by_ns),
            corrupt: faults.corrupt,
            delay: Duration::from_nanos(faults.delay_ns),
            jitter: Duration::from_nanos(faults.jitter_ns),
            rate: (faults.rate != 0).then_some(faults.rate),
            queue: usize::try_from(faults.queue_bytes)
                .map_err(|_| Error::invalid("queue_bytes", "is larger than the address space"))?,
            max_packet: (faults.max_packet != 0).then_some(faults.max_packet as usize),
        })
    }
}

/// Which faults, and whose packets they concern; connections over streams are not harmed.
/// trunk_fault_config_init prepares it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trunk_fault_config {
    /// Size of this struct; set by trunk_fault_config_init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The same seed does the same to the same packets. Counts when the engine is made. 0.
    pub seed: u64,
    /// Faults of what is sent. NULL = none.
    pub outbound: *const trunk_faults,
    /// Faults of what is received. NULL = none.
    pub inbound: *const trunk_faults,
    /// Only packets to or from these addresses, such as "192.0.2.7:7470"; port 0 stands for every
    /// port. NULL = all, unless conn is given.
    pub addresses: *const *const c_char,
    /// Number of them.
    pub address_count: usize,
    /// trunk_engine_set_faults: only packets of the peer of this connection, besides the addresses.
    /// 0 = none.
    pub conn: trunk_conn,
}

// SAFETY: `repr(C)`, starts with `struct_size`, integers and pointers only.
unsafe impl Struct for trunk_fault_config {
    const NAME: &'static str = "trunk_fault_config";

    fn defaults() -> Self {
        Self {
            struct_size: 0,
            reserved: 0,
            seed: 0,
            outbound: std::ptr::null(),
            inbound: std::ptr::null(),
            addresses: std::ptr::null(),
            address_count: 0,
            conn: 0,
        }
    }
}

impl trunk_fault_config {
    /// The faults at a pointer; `None` for NULL.
    ///
    /// # Safety
    /// As [`abi::read`], and the pointers are NULL or point to what their fields say.
    pub(crate) unsafe fn optional(
        from: *const Self,
        live: Option<&Live>,
    ) -> Result<Option<FaultConfig>> {
        if from.is_null() {
            return Ok(None);
        }
        // SAFETY: by contract.
        unsafe {
            let config = abi::read(from)?;
            let list = abi::array(config.addresses, config.address_count, "addresses")?;
            let mut only = Vec::with_capacity(list.len() + 1);
            for address in list {
                only.push(abi::address(*address, "address")?);
            }
            if config.conn != 0 {
                only.push(remote(live, config.conn)?);
            }
            Ok(Some(FaultConfig {
                seed: config.seed,
                outbound: trunk_faults::optional(config.outbound)?,
                inbound: trunk_faults::optional(config.inbound)?,
                only,
            }))
        }
    }
}

fn remote(live: Option<&Live>, conn: trunk_conn) -> Result<SocketAddr> {
    let live = live.ok_or(Error::invalid("conn", "cannot be given before there is an engine"))?;
    live.drive()?;
    Ok(live.queued.info(live.names.masks.conn_of(conn))?.remote)
}

/// Fills struct_size bytes at faults with the defaults. Call it as trunk_faults_init(&faults).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_faults_init_sized(
    faults: *mut trunk_faults,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(faults, struct_size) })
}

/// Fills struct_size bytes at config with the defaults. Call it as
/// trunk_fault_config_init(&config).
///
/// Any thread, never blocks. Errors: TRUNK_ERR_NULL, TRUNK_ERR_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_fault_config_init_sized(
    config: *mut trunk_fault_config,
    struct_size: usize,
) -> trunk_result {
    // SAFETY: handed on to the caller's contract.
    guard(|| unsafe { abi::init(config, struct_size) })
}

/// Changes the faults of an engine that was made with trunk_engine_config.faults, and whose packets
/// they concern. config may be NULL, which ends them.
///
/// Any thread, never blocks; with config.conn it waits for the connection's shard, usually for
/// microseconds, and without threads belongs to the one that polls. Errors: TRUNK_ERR_NULL,
/// TRUNK_ERR_INVALID_HANDLE, TRUNK_ERR_INVALID_ARGUMENT, TRUNK_ERR_FORKED; with config.conn also
/// TRUNK_ERR_NO_CONNECTION, TRUNK_ERR_WOULD_BLOCK, TRUNK_ERR_WRONG_THREAD and
/// TRUNK_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trunk_engine_set_faults(
    engine: *mut trunk_engine,
    config: *const trunk_fault_config,
) -> trunk_result {
    guard(|| {
        // SAFETY: from `trunk_engine_new` by contract.
        let live = unsafe { live(engine) }?;
        // SAFETY: a config by contract.
        let faults = unsafe { trunk_fault_config::optional(config, Some(live)) }?;
        Ok(live.queued.set_faults(&faults.unwrap_or_default())?)
    })
}
