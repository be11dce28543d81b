//! The plan and the outcome of a rebuild, as text and JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::{Earlier, Plan};
use crate::connector::prose::{counted, listed};
use crate::daemon::exchange::Direction;

/// A file or directory that was exchanged.
#[derive(Debug)]
pub(crate) struct FileSizes {
    path: PathBuf,
    before: u64,
    after: u64,
}

impl FileSizes {
    /// Pairs the sizes of the same files.
    pub(crate) fn paired(before: Vec<(PathBuf, u64)>, after: Vec<(PathBuf, u64)>) -> Vec<Self> {
        let both = before.into_iter().zip(after);
        both.map(|((path, before), (_, after))| Self { path, before, after }).collect()
    }
}

/// The outcome of the command.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Results and progress are those of the rebuild.
    Rebuilt { events: u64, took: Duration, files: Vec<FileSizes> },
    /// Results and progress are those before the rebuild.
    Undone { files: Vec<FileSizes> },
    /// An exchange that had been interrupted is complete.
    Completed(Direction),
}

impl Outcome {
    fn state(&self) -> &'static str {
        match self {
            Self::Rebuilt { .. } | Self::Completed(Direction::Rebuilt) => "rebuilt",
            Self::Undone { .. } | Self::Completed(Direction::Former) => "undone",
        }
    }

    fn files(&self) -> &[FileSizes] {
        match self {
            Self::Rebuilt { files, .. } | Self::Undone { files } => files,
            Self::Completed(_) => &[],
        }
    }

    pub(crate) fn to_json(&self, plan: &Plan) -> Value {
        let files = self.files().iter().map(|FileSizes { path, before, after }| {
            json!({ "path": shown(path), "before_bytes": before, "after_bytes": after })
        });
        let mut json = json!({
            "pipeline": plan.definition().name(),
            "state": self.state(),
            "completed": matches!(self, Self::Completed(_)),
            "files": files.collect::<Vec<_>>(),
            "former_files": plan.former(),
        });
        if let Self::Rebuilt { events, took, .. } = self {
            json["events"] = (*events).into();
            json["seconds"] = took.as_secs_f64().into();
        }
        json
    }

    pub(crate) fn render(&self, plan: &Plan) -> String {
        let name = plan.definition().name();
        let mut lines = vec![match self {
            Self::Rebuilt { events, took, .. } => {
                let seconds = took.as_secs_f64();
                format!("`{name}` is rebuilt: {} handled in {seconds:.1} s", counted(*events, "event"))
            }
            Self::Undone { .. } => format!("`{name}` is back at its files before the rebuild"),
            Self::Completed(Direction::Rebuilt) => {
                format!("`{name}` is rebuilt: the exchange of its files, which was interrupted, is complete")
            }
            Self::Completed(Direction::Former) => format!(
                "`{name}` is back at its files before the rebuild: the exchange, which was interrupted, is complete"
            ),
        }];
        lines.extend(self.files().iter().map(|FileSizes { path, before, after }| {
            format!("  {}: {}, before {}", path.display(), HumanBytes(*after), HumanBytes(*before))
        }));
        let resumes = "The daemon resumes at the progress that belongs to these files. Programs that have them open must \
            open them again.";
        lines.push(resumes.to_owned());
        if let Some(former) = plan.former() {
            lines.push(format!(
                "The former files are in `{former}`. `propulsiond rebuild {name} --undo` returns to them; delete the \
                 directory once it is no longer needed."
            ));
        }
        lines.join("\n") + "\n"
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl Plan {
    /// Returns the name of the earlier rebuild's fate in JSON.
    fn earlier_name(&self) -> &'static str {
        match self.earlier {
            Earlier::Absent => "absent",
            Earlier::Resumed => "resumed",
            Earlier::Outdated | Earlier::Unwanted => "discarded",
        }
    }

    /// Returns the directory of the files before an earlier exchange, if it exists.
    fn former(&self) -> Option<String> {
        let former = self.workspace.former();
        former.is_dir().then(|| shown(&former))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "pipeline": self.definition().name(),
            "state": "planned",
            "directory": shown(&self.workspace.rebuilt()),
            "files": self.files.iter().map(|file| shown(&self.data.join(file))).collect::<Vec<_>>(),
            "earlier": self.earlier_name(),
            "former_files": self.former(),
            "used_by": self.holder,
        })
    }

    pub(crate) fn render(&self) -> String {
        let name = self.definition().name();
        let files: Vec<_> = self.files.iter().map(|file| format!("`{}`", self.data.join(file).display())).collect();
        let rebuilt = self.workspace.rebuilt();
        let mut lines = vec![match self.earlier {
            Earlier::Absent => {
                format!("`{name}` is built again in `{}`, from the origin of its source.", rebuilt.display())
            }
            Earlier::Resumed => format!("The rebuild of `{name}` in `{}` is resumed.", rebuilt.display()),
            Earlier::Outdated => format!(
                "The rebuild in `{}` is not of the present definition of `{name}`: it is discarded, and another one starts \
                 at the origin of the source.",
                rebuilt.display()
            ),
            Earlier::Unwanted => format!(
                "The rebuild of `{name}` in `{}` is discarded, and another one starts at the origin of the source.",
                rebuilt.display()
            ),
        }];
        lines.push(format!("When it has caught up, it replaces {}.", listed(&files, "and")));
        if let Some(former) = self.former() {
            lines.push(format!(
                "`{former}` then keeps the replaced files. Those of an earlier rebuild in it are deleted."
            ));
        }
        if let Some(holder) = &self.holder {
            lines.push(format!(
                "A daemon uses these files ({holder}). It goes on meanwhile, and restarts the pipeline to replace them."
            ));
        }
        lines.join("\n") + "\n"
    }
}
