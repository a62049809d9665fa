//! Builds the driver: `$OUT_DIR/driver.bpf.o`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    headgate_build_ebpf::build("bench/driver", "driver").map(drop)
}
