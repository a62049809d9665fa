//! Builds the programs: `$OUT_DIR/headgate.bpf.o`, and its digest in `HEADGATE_OBJECT_DIGEST`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match headgate_build_ebpf::build("ebpf/programs", "headgate") {
        Ok(digest) => {
            println!("cargo:rustc-env=HEADGATE_OBJECT_DIGEST={digest}");
            ExitCode::SUCCESS
        }
        // Not returned from main: that would print the remedy as one line of escapes.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
