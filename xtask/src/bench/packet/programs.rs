//! The programs on the links of a node, found by their pins, and run on frames by the kernel.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    TestRun, TestRunOptions,
    programs::{
        ProgramInfo, SchedClassifier, Xdp,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use aya_obj::programs::XdpAttachType;

/// Bytes of `struct __sk_buff` and `struct xdp_md` that the kernels of today know.
const SK_BUFF: usize = 184;
const XDP_MD: usize = 24;

/// A program, and the link that it is on.
pub(super) enum Program {
    Tc { program: SchedClassifier, link: u32 },
    Xdp { program: Xdp, link: u32 },
}

/// What came of a run.
pub(super) struct Run {
    pub(super) verdict: u32,
    pub(super) frame: Vec<u8>,
    /// By the kernel's clock.
    pub(super) nanoseconds: f64,
}

impl Program {
    /// The program of this name that is pinned in a folder of links. To be called on the node.
    pub(super) fn find(links: &Path, name: &str) -> Result<Self> {
        let prefix = format!("{name}-if");
        let entries = fs::read_dir(links).with_context(|| format!("listing {}", links.display()))?;
        let pin = entries.flatten().map(|entry| entry.path()).find(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix))
        });
        let pin = pin.with_context(|| format!("{name} is on no link"))?;
        let link = pin.to_string_lossy().rsplit("-if").next().and_then(|index| index.parse().ok());
        let link = link.with_context(|| format!("{} has no index", pin.display()))?;
        let pinned: FdLink =
            PinnedLink::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))?.into();
        let id = pinned.info().context("asking for the link's program")?.program_id();
        let info = by_id(id)?;
        let name = name.to_owned().into();
        if prefix.contains("xdp") {
            let program = Xdp::from_program_info(info, name, XdpAttachType::Interface)
                .context("opening the program")?;
            Ok(Self::Xdp { program, link })
        } else {
            let program = SchedClassifier::from_program_info(info, name).context("opening the program")?;
            Ok(Self::Tc { program, link })
        }
    }

    /// Runs the program on a frame, in the thread's network namespace.
    pub(super) fn run(&self, frame: &[u8]) -> Result<Run> {
        let mut out = vec![0; frame.len() + 256];
        let result = match self {
            Self::Tc { program, link } => {
                let mut context = [0; SK_BUFF];
                // ingress_ifindex and ifindex.
                context[36..40].copy_from_slice(&link.to_ne_bytes());
                context[40..44].copy_from_slice(&link.to_ne_bytes());
                program.test_run(options(frame, &mut out, &context))
            }
            Self::Xdp { program, link } => {
                let mut context = [0; XDP_MD];
                let length = u32::try_from(frame.len()).context("a frame's length")?;
                // data_end and ingress_ifindex.
                context[4..8].copy_from_slice(&length.to_ne_bytes());
                context[12..16].copy_from_slice(&link.to_ne_bytes());
                program.test_run(options(frame, &mut out, &context))
            }
        }
        .context("running a program on a frame")?;
        out.truncate(result.data_size_out as usize);
        Ok(Run { verdict: result.return_value, frame: out, nanoseconds: result.duration.as_secs_f64() * 1e9 })
    }
}

fn options<'a>(frame: &'a [u8], out: &'a mut [u8], context: &'a [u8]) -> TestRunOptions<'a> {
    TestRunOptions {
        data_in: Some(frame),
        data_out: Some(out),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    }
}

fn by_id(id: u32) -> Result<ProgramInfo> {
    for info in loaded_programs() {
        let info = info.context("listing the loaded programs")?;
        if info.id() == id {
            return Ok(info);
        }
    }
    bail!("program {id} is gone")
}

/// Fails unless the frame was sent on.
pub(super) fn expect(run: &Run, verdicts: &[u32], what: &str) -> Result<()> {
    ensure!(
        verdicts.contains(&run.verdict),
        "{what}: verdict {} instead of one of {verdicts:?}",
        run.verdict
    );
    Ok(())
}
