//! What the engine's own threads have to say, on the standard error.

use std::fmt::Arguments;
use std::io::Write;
use std::os::fd::AsFd;

use shoal_sys::poll::writable;

/// Says it. Nobody may listen: the standard error may be closed, or a pipe that nobody reads, or that is full. `eprintln` would
/// panic then, or wait, and with the thread that noticed a death all that it has to do would end.
pub(crate) fn say(words: Arguments<'_>) {
    let mut line = format!("shoal: {words}\n").into_bytes();
    // So much a pipe takes at once that can be written to.
    line.truncate(4096);
    let mut stderr = std::io::stderr().lock();
    if writable(stderr.as_fd()) {
        // Where it could be told that this failed is just what failed. One write, so that others don't come in between.
        let _unheard = stderr.write_all(&line);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SPEAKER: &str = "SHOAL_TEST_SPEAKER";

    /// Runs itself, with a standard error that nobody reads.
    #[test]
    fn who_says_something_to_nobody_goes_on() {
        if std::env::var(SPEAKER).is_ok() {
            // On a thread of its own, whose words the test's harness does not take.
            let speaker = std::thread::spawn(|| super::say(format_args!("anybody?")));
            return speaker.join().expect("it goes on");
        }
        let (reader, writer) = std::io::pipe().expect("two descriptors");
        drop(reader);
        let name = "aside::tests::who_says_something_to_nobody_goes_on";
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", name, "--nocapture"]).env(SPEAKER, "1").stdout(Stdio::null()).stderr(writer);
        assert!(command.status().expect("it starts").success());
        // The same, of one that is full.
        let (_reader, mut writer) = std::io::pipe().expect("two descriptors");
        while writable(writer.as_fd()) {
            writer.write_all(&[b'.'; 4096]).expect("it takes so much");
        }
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", name, "--nocapture"]).env(SPEAKER, "1").stdout(Stdio::null()).stderr(writer);
        assert!(command.status().expect("it starts").success());
    }
}
