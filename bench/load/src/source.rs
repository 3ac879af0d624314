//! Which kind of work to do: virtual in the lab, a calibrated loop elsewhere.

use crate::loop_work::{Calibration, LoopWork, calibrate};
use crate::virtual_work::VirtualWork;
use crate::vsoc::{DEVICE, VirtualSoc};
use crate::work::Work;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::num::NonZeroU64;
use std::path::Path;

/// The user's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Virtual where the lab's device exists, else the loop
    Auto,
    /// Progress by the speeds of the lab's virtual machine
    Virtual,
    /// A loop timed on the biggest CPU
    Loop,
}

/// Makes one `Work` per thread.
#[derive(Debug, Clone)]
pub enum Source {
    /// On the lab's machine.
    Virtual(VirtualSoc),
    /// By the loop.
    Loop(Calibration),
}

impl Source {
    /// Opens the device or calibrates the loop, as the choice demands.
    ///
    /// # Errors
    /// When the device is asked for and cannot be used, when the loop cannot be
    /// timed, and when a calibration is given for work that has none.
    pub fn choose(
        kind: Kind,
        given_ps: Option<NonZeroU64>,
        calibration_cpu: Option<usize>,
    ) -> Result<Self> {
        let device = Path::new(DEVICE);
        if kind == Kind::Virtual || (kind == Kind::Auto && device.exists()) {
            if given_ps.is_some() {
                bail!(
                    "--calibration is the cost of a loop; virtual work has none: leave it out or use --work loop"
                );
            }
            let soc = VirtualSoc::open(device).with_context(|| {
                format!(
                    "{DEVICE}: cannot use the virtual machine; outside of the lab use --work loop"
                )
            })?;
            return Ok(Self::Virtual(soc));
        }
        Ok(Self::Loop(match given_ps {
            Some(ps_per_loop) => Calibration {
                ps_per_loop,
                measured_on: None,
            },
            None => calibrate(calibration_cpu).with_context(|| match calibration_cpu {
                Some(cpu) => format!("cannot calibrate the loop on cpu {cpu}"),
                None => "cannot calibrate the loop".to_owned(),
            })?,
        }))
    }

    /// Work for one thread.
    pub fn work(&self) -> Box<dyn Work> {
        match self {
            Self::Virtual(soc) => Box::new(VirtualWork::new(soc.clone())),
            Self::Loop(calibration) => Box::new(LoopWork::new(*calibration)),
        }
    }
}
