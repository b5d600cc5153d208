//! From a finished write to new bytes in a reader's hands, beside a bare notify loop and Bevy's asset server in the same
//! run; ten thousand files changed at once; starting on an unchanged tree; what a watched file costs in memory.
//!
//! ```sh
//! scripts/reload.sh                # builds benches/peers with Bevy's asset server, then runs all of it
//! cargo bench --bench reload -- [edits|many|start|memory]... [--files 1000,50000,100000] [--edits 2000] [--blocks 10]
//!     [--pause 20] [--bevy PROGRAM] [--bevy-edits 60]
//! ```
//! Trees are made in the temporary folder: folders of 100 files of 1 to 20 KiB of text. Edits come one at a time, in
//! place (truncate, write, close) and by a rename from outside in turn, each after a pause of half to one and a half
//! times `--pause` milliseconds since the last one was seen. Every block runs every subject on every tree after the
//! other, nobody else being alive meanwhile, so that what the machine does besides meets all of them alike.

#[cfg(unix)]
#[path = "reload/run.rs"]
mod run;

fn main() {
    #[cfg(unix)]
    run::main();
    #[cfg(not(unix))]
    eprintln!("this bench asks a Unix about its processes and files; there is none here");
}
