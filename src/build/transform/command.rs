//! `command`: an external program as a transform, for tools that are no library.
//!
//! Files go in and come out through a temporary folder of each run, which is the program's current folder and holds its
//! input and what else it is declared to read, under their paths of the tree:
//!
//! | in `argv` | stands for |
//! |---|---|
//! | `{input}` | the input, a copy |
//! | `{output}` | where the program is to write what it makes |
//! | `{outputs}` | a folder; a file `name` that it writes there is the asset `<path>#name` |
//!
//! No shell is between. The program reads no terminal, sees the few variables of [`process::ENVIRONMENT`] and has a
//! time limit, after which it is killed with what it started. It is not shut in otherwise: it runs as whoever runs
//! Flyloft. A tree from elsewhere must not be able to run programs, so commands are refused until they are allowed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::{Context, Input, Labelled, Output, Transform};
use crate::error::{Error, Result};
use crate::ids::AssetPath;
use crate::platform::process::{self, Ended, Scratch};

/// Longest that a command may be allowed, in seconds.
const TIME_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Lines of what a program said that an error shows.
const LINES_SHOWN: usize = 5;

/// The command transform.
#[derive(Debug, Default)]
pub struct Command {
    allowed: bool,
    /// Runs so far: each has a folder of its own.
    runs: AtomicU64,
}

/// The parameters of [`Command`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandParameters {
    /// The program, by its name in `PATH` or its absolute path, and its arguments.
    pub argv: Vec<String>,
    /// Other files of the tree that it reads. The asset is built again when one of them changes.
    #[serde(default)]
    pub reads: Vec<AssetPath>,
    /// What the file is called that `{output}` stands for: many programs choose the format by it. Default: what the
    /// input is called.
    #[serde(default)]
    pub output_name: Option<String>,
    /// To be raised when the program is another one and makes something else: what it is, nobody looks at. Default 1.
    #[serde(default = "first")]
    pub version: u32,
    /// Seconds that it may take. Default 60.
    #[serde(default = "minute")]
    pub time_seconds_max: u64,
    /// Bytes that it may make, over all of its outputs. Default 256 MiB.
    #[serde(default = "quarter")]
    pub output_bytes_max: u64,
}

fn first() -> u32 {
    1
}

fn minute() -> u64 {
    60
}

fn quarter() -> u64 {
    256 << 20
}

impl Command {
    /// Its name.
    pub const NAME: &'static str = "command";

    /// One that runs what `flyloft.toml` says.
    pub fn allowed() -> Self {
        Self { allowed: true, ..Self::default() }
    }

    /// One that refuses every rule, and says how to allow it.
    pub fn refused() -> Self {
        Self::default()
    }
}

impl Transform for Command {
    type Parameters = CommandParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, parameters: &CommandParameters) -> Result<(), String> {
        if !self.allowed {
            return Err("this tree would run a program on your machine; where you trust it, allow that with \
                        --allow-commands, or `allow_commands` of the configuration"
                .into());
        }
        let Some(program) = parameters.argv.first() else {
            return Err("'argv' is empty; expected a program and its arguments".into());
        };
        // From where would it be relative? Not from the tree, whose files are data.
        if program.is_empty() || (program.contains(['/', '\\']) && !Path::new(program).is_absolute()) {
            return Err(format!("'argv': {program:?} is neither the name of a program in PATH nor an absolute path"));
        }
        let lower = program.to_ascii_lowercase();
        if lower.ends_with(".bat") || lower.ends_with(".cmd") {
            return Err(format!("'argv': {program:?} is run by a shell, which reads arguments its own way"));
        }
        if parameters.argv.iter().any(|argument| argument.contains('\0')) {
            return Err("'argv': an argument contains a NUL".into());
        }
        if !parameters.argv.iter().any(|argument| argument.contains("{output}")) {
            return Err("'argv': no argument contains {output}, the file that the program is to write".into());
        }
        if let Some(name) = &parameters.output_name
            && (name.contains('/') || AssetPath::new(name).is_err())
        {
            return Err(format!("'output_name' is {name:?}; expected the name of a file"));
        }
        if !(1..=TIME_SECONDS_MAX).contains(&parameters.time_seconds_max) {
            return Err(format!(
                "'time_seconds_max' is {}; expected 1 to {TIME_SECONDS_MAX}",
                parameters.time_seconds_max
            ));
        }
        if parameters.output_bytes_max == 0 {
            return Err("'output_bytes_max' is 0; expected 1 or more".into());
        }
        Ok(())
    }

    fn run(&self, input: Input<'_>, parameters: &CommandParameters, context: &mut dyn Context) -> Result<Output> {
        let fail = |line: Option<u32>, cause: String| input.error(Self::NAME, line, cause);
        // Whoever calls this without a rule has not been asked.
        self.check(parameters).map_err(|why| fail(None, why))?;
        let failed = |what: &str, error: std::io::Error| fail(None, format!("cannot {what}: {error}"));
        let scratch = Scratch::new(self.runs.fetch_add(1, Ordering::Relaxed))
            .map_err(|error| failed("make a temporary folder", error))?;
        let below = |path: &AssetPath| format!("in/{path}");
        for path in &parameters.reads {
            let bytes =
                context.read(path).ok_or_else(|| fail(None, format!("it reads '{path}', which is not there")))?;
            scratch.write(&below(path), &bytes).map_err(|error| failed("copy what it reads", error))?;
        }
        let source = scratch.write(&below(input.path), input.bytes).map_err(|error| failed("copy its input", error))?;
        let prepare = |folder: &str| scratch.folder(folder).map_err(|error| failed("make a temporary folder", error));
        let (inside, outputs) = (prepare("in")?, prepare("outputs")?);
        let name = parameters.output_name.as_deref().unwrap_or(input.path.file_name());
        let output = prepare("out")?.join(name);
        let argv = argv(&parameters.argv, &[("{input}", &source), ("{output}", &output), ("{outputs}", &outputs)])
            .map_err(|why| fail(None, why))?;
        let program = &parameters.argv[0];
        let within = Duration::from_secs(parameters.time_seconds_max);
        let ended = process::run(&argv, &inside, within).map_err(|error| failed(&format!("run '{program}'"), error))?;
        if !ended.status.is_some_and(|status| status.success()) {
            let line = line_said(&ended.said, input.path);
            return Err(fail(line, complaint(program, &ended, parameters.time_seconds_max)));
        }
        self.collect(&input, program, parameters.output_bytes_max, &output, &outputs)
    }
}

impl Command {
    fn collect(
        &self,
        input: &Input<'_>,
        program: &str,
        bytes_max: u64,
        output: &Path,
        outputs: &Path,
    ) -> Result<Output> {
        let fail = |cause: String| -> Error { input.error(Self::NAME, None, cause) };
        let unread = |what: &str, error: std::io::Error| fail(format!("cannot take {what} of '{program}': {error}"));
        let bytes = process::read_at_most(output, bytes_max).map_err(|error| unread("the output", error))?;
        let bytes = bytes.ok_or_else(|| fail(format!("'{program}' ended well and wrote no {{output}}")))?;
        let mut left = bytes_max.saturating_sub(bytes.len() as u64);
        let mut built = Output::from(bytes);
        for (label, file) in process::files_below(outputs).map_err(|error| unread("the outputs", error))? {
            let bytes = process::read_at_most(&file, left).map_err(|error| unread(&format!("'{label}'"), error))?;
            let bytes = bytes.unwrap_or_default();
            left = left.saturating_sub(bytes.len() as u64);
            built.labelled.push(Labelled { label, kind: None, bytes, dependencies: Vec::new() });
        }
        Ok(built)
    }
}

/// `argv` with its placeholders filled in.
fn argv(argv: &[String], values: &[(&str, &Path)]) -> Result<Vec<String>, String> {
    let mut filled = Vec::with_capacity(argv.len());
    for argument in argv {
        let mut argument = argument.clone();
        for (name, path) in values {
            if argument.contains(name) {
                let path = path.to_str().ok_or("the folder of temporary files has a name that is not UTF-8")?;
                argument = argument.replace(name, path);
            }
        }
        filled.push(argument);
    }
    Ok(filled)
}

/// What went wrong, with the last lines that the program said.
fn complaint(program: &str, ended: &Ended, seconds: u64) -> String {
    let what = match ended.status {
        None => format!("'{program}' was stopped after {seconds} s"),
        Some(status) => format!("'{program}' ended with {status}"),
    };
    let lines: Vec<&str> = ended.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => what,
        lines => format!("{what}: {}", lines[lines.len().saturating_sub(LINES_SHOWN)..].join("; ")),
    }
}

/// The line of the input that the program names, as most do: `name:LINE` or `name(LINE)`.
fn line_said(said: &str, path: &AssetPath) -> Option<u32> {
    let name = path.file_name();
    said.match_indices(name).find_map(|(at, _)| {
        let digits = said[at + name.len()..].strip_prefix([':', '('])?;
        let len = digits.bytes().take_while(u8::is_ascii_digit).count();
        digits[..len].parse().ok().filter(|line| *line > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::NoFiles;
    use super::*;

    fn parameters(text: &str) -> CommandParameters {
        toml::from_str(text).unwrap()
    }

    #[cfg(unix)]
    fn run(text: &str, context: &mut dyn Context) -> Result<Output> {
        let path = AssetPath::new("text/a.txt").unwrap();
        Command::allowed().run(Input { path: &path, bytes: b"one\ntwo\n" }, &parameters(text), context)
    }

    /// A tree of one other file.
    #[cfg(unix)]
    struct One;

    #[cfg(unix)]
    impl Context for One {
        fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>> {
            (path.as_str() == "data/names.txt").then(|| b"batten".to_vec())
        }
        fn exists(&mut self, path: &AssetPath) -> bool {
            path.as_str() == "data/names.txt"
        }
        fn list(&mut self, _folder: &str) -> Vec<super::super::Entry> {
            Vec::new()
        }
    }

    #[test]
    fn no_program_runs_unless_that_is_allowed() {
        let parameters = parameters("argv = ['true', '{output}']");
        let why = Command::refused().check(&parameters).unwrap_err();
        assert!(why.contains("--allow-commands"), "{why}");
        let path = AssetPath::new("a").unwrap();
        let refused = Command::refused().run(Input { path: &path, bytes: b"" }, &parameters, &mut NoFiles);
        assert!(refused.unwrap_err().to_string().contains("--allow-commands"));
        Command::allowed().check(&parameters).unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_runs() {
        let check = |text: &str, expected: &str| {
            let why = Command::allowed().check(&parameters(text)).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("argv = []", "'argv' is empty");
        check("argv = ['bin/tool', '{output}']", "neither the name of a program in PATH nor an absolute path");
        check("argv = ['..\\tool', '{output}']", "neither the name");
        check("argv = ['tool.BAT', '{output}']", "is run by a shell");
        check("argv = ['cp', '{input}']", "no argument contains {output}");
        check("argv = ['cp', '{output}']\ntime_seconds_max = 0", "'time_seconds_max' is 0");
        check("argv = ['cp', '{output}']\noutput_name = '../x'", "'output_name' is \"../x\"");
        check("argv = ['cp', '{output}']\noutput_bytes_max = 0", "'output_bytes_max' is 0");
        assert!(toml::from_str::<CommandParameters>("argv = ['cp']\nreads = ['../x']").is_err());
    }

    #[test]
    fn the_line_is_the_one_that_the_program_names() {
        let path = AssetPath::new("text/a.txt").unwrap();
        let check = |said: &str, line| assert_eq!(line_said(said, &path), line, "{said}");
        check("in a.txt: bad\n/tmp/x/in/text/a.txt:12:3: bad", Some(12));
        check("a.txt(7,3): error", Some(7));
        check("a.txt: no", None);
        check("", None);
    }

    #[cfg(unix)]
    #[test]
    fn files_go_in_and_come_out() {
        let output = run(
            "reads = ['data/names.txt']\nargv = ['sh', '-c', 'cat \"$1\" data/names.txt >\"$2\" && mkdir \"$3/b\" && \
             pwd >/dev/null && echo c >\"$3/b/c.txt\" && echo a >\"$3/a\"', 'sh', '{input}', '{output}', '{outputs}']",
            &mut One,
        )
        .unwrap();
        assert_eq!(output.bytes, b"one\ntwo\nbatten");
        let labelled: Vec<_> = output.labelled.iter().map(|one| (one.label.as_str(), one.bytes.as_slice())).collect();
        assert_eq!(labelled, [("a", &b"a\n"[..]), ("b/c.txt", b"c\n")]);
        let named = "output_name = 'b.png'\nargv = ['sh', '-c', 'basename \"$1\" >\"$1\"', 'sh', '{output}']";
        assert_eq!(run(named, &mut One).unwrap().bytes, b"b.png\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_failure_says_what_the_program_said_and_leaves_nothing_behind() {
        let check = |text: &str, expected: &str| {
            let error = run(text, &mut One).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let sh =
            |script: &str| format!("argv = ['sh', '-c', '{script}', 'sh', '{{input}}', '{{output}}', '{{outputs}}']");
        check(&sh("echo \"$1:2: bad word\" >&2; exit 3"), "text/a.txt:2: command: 'sh' ended with exit status: 3: ");
        check(&sh("exit 0"), "'sh' ended well and wrote no {output}");
        check(&(sh("sleep 1000") + "\ntime_seconds_max = 1"), "'sh' was stopped after 1 s");
        check(&(sh("echo 12345 >\"$2\"") + "\noutput_bytes_max = 5"), "it has more than 5 bytes");
        check(&(sh("echo 12345 >\"$2\"; echo 1 >\"$3/a\"") + "\noutput_bytes_max = 7"), "cannot take 'a' of 'sh'");
        check(&sh("ln -s /etc/hostname \"$2\""), "it is no regular file");
        check("argv = ['flyloft-no-such-program', '{output}']", "cannot run 'flyloft-no-such-program'");
        check("reads = ['data/none']\nargv = ['true', '{output}']", "it reads 'data/none', which is not there");
        // Arguments are not looked at by any shell.
        check("argv = ['cp', '{input}; touch x', '{output}']", "'cp' ended with");
    }
}
